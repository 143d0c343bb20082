# The Mix project, and the compiler that provides the NIF: a library that the package contains for this
# platform, or else one that cargo builds. The compiler is defined here because it must exist before
# the project is compiled. Must load without Hex: Mix aborts on a Hex dependency if Hex is missing.
defmodule Mix.Tasks.Compile.SssNif do
  @moduledoc false
  use Mix.Task.Compiler

  @crate Path.expand("native/sss_nif", __DIR__)
  # Archives, and the file SHA256SUMS. Only the Hex package has the directory.
  @precompiled Path.expand("native/precompiled", __DIR__)
  # That of the crate's feature.
  @nif_version "2.15"

  @impl true
  def run(_args) do
    # In the build directory, so that the source tree stays clean and every environment has its own
    # copy.
    target = Path.join(Mix.Project.app_path(), "priv/sss_nif.so")

    library =
      given(System.get_env("SSS_NIF_PATH")) || precompiled(System.get_env("SSS_NIF_BUILD")) ||
        File.read!(cargo_build(_quiet = File.exists?(target)))

    if File.read(target) == {:ok, library}, do: {:noop, []}, else: install(library, target)
  end

  @impl true
  def clean, do: File.rm(Path.join(Mix.Project.app_path(), "priv/sss_nif.so"))

  defp given(nil), do: nil

  defp given(path),
    do: if(File.regular?(path), do: File.read!(path), else: Mix.raise("SSS_NIF_PATH is not a file: #{path}"))

  # The library for this platform, if the package has one and no build is demanded. An archive with
  # another checksum than the package's list is an error: it is not what was released.
  defp precompiled(build) when build not in [nil, "", "0"], do: nil

  defp precompiled(_build) do
    version = Mix.Project.config()[:version]
    name = "libsss_nif-v#{version}-nif-#{@nif_version}-#{platform()}.so"

    with {:ok, archive} <- File.read(Path.join(@precompiled, "#{name}.tar.gz")) do
      sum = :crypto.hash(:sha256, archive) |> Base.encode16(case: :lower)
      sums = @precompiled |> Path.join("SHA256SUMS") |> File.read!()
      if not String.contains?(sums, "#{sum}  #{name}.tar.gz"), do: Mix.raise("#{name}.tar.gz has a wrong checksum")
      {:ok, files} = :erl_tar.extract({:binary, archive}, [:compressed, :memory])
      {_name, library} = Enum.find(files, fn {path, _bytes} -> Path.basename(to_string(path)) == name end)
      library
    else
      {:error, _} -> nil
    end
  end

  # Such as "x86_64-unknown-linux-gnu".
  defp platform do
    [processor | rest] = :erlang.system_info(:system_architecture) |> to_string() |> String.split("-")
    "#{processor}-unknown-#{rest |> Enum.take(-2) |> Enum.join("-")}"
  end

  defp cargo_build(quiet) do
    cargo =
      System.find_executable("cargo") ||
        Mix.raise("""
        session_server_store is built with cargo, which was not found.
        Install Rust 1.91 or later (https://rustup.rs), or set SSS_NIF_PATH to a library that was built elsewhere.
        """)

    # Cargo writes one JSON message per line to stdout, and progress and diagnostics to stderr.
    args = ~w(build --release --locked --message-format=json-render-diagnostics)

    case System.cmd(cargo, if(quiet, do: args ++ ["--quiet"], else: args), cd: @crate) do
      {messages, 0} -> artifact_path(messages)
      {_messages, _} -> Mix.raise("cargo could not build #{@crate}: see its messages above")
    end
  end

  # The path depends on CARGO_TARGET_DIR, the target and the suffix of the platform, so it is taken
  # from cargo's messages.
  defp artifact_path(messages) do
    line =
      messages
      |> String.split("\n")
      |> Enum.find(&(&1 =~ ~s("reason":"compiler-artifact") and &1 =~ ~s("name":"sss_nif"))) ||
        Mix.raise("cargo printed no path of sss_nif")

    [_, path] = Regex.run(~r/"filenames":\["((?:[^"\\]|\\.)*)"/, line)
    String.replace(path, ~r/\\(.)/, "\\1")
  end

  # By renaming: a running VM has the old file mapped, and would crash if it were overwritten.
  defp install(library, target) do
    File.mkdir_p!(Path.dirname(target))
    File.write!(target <> ".new", library)
    File.rename!(target <> ".new", target)
    {:ok, []}
  end
end

defmodule SessionServerStore.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://github.com/libsss/libsss"

  def project do
    [
      app: :session_server_store,
      version: @version,
      elixir: "~> 1.14",
      name: "SessionServerStore",
      description: "A server-side session store for Plug: sessions that can be updated, destroyed and expired",
      package: [
        licenses: ["Apache-2.0", "MIT"],
        links: %{"Repository" => @source_url},
        # packaging/dist.py adds what is not in this folder: the licences, the crate in
        # native/sss_nif/session-server-store and the library in native/precompiled.
        files:
          ~w(lib native guides mix.exs README.md .formatter.exs CHANGELOG.md LICENSE-APACHE LICENSE-MIT THIRD-PARTY-NOTICES)
      ],
      compilers: [:sss_nif] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      # The plugs compile without Plug, which is optional, like telemetry.
      xref: [exclude: [Plug.Conn, Plug.Session, Plug.Session.Store, Phoenix.LiveView, Phoenix.PubSub, :telemetry]],
      start_permanent: Mix.env() == :prod,
      source_url: @source_url,
      docs: docs(),
      build_path: build_path(deps_path()),
      deps: deps(deps_path())
    ]
  end

  def application do
    [
      mod: {SessionServerStore.Application, []},
      extra_applications: [:crypto, :logger],
      env: [url: "memory:", sweep_interval: 60]
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      source_url_pattern: "#{@source_url}/blob/v#{@version}/bindings/elixir/%{path}#L%{line}",
      extras:
        ["README.md": [title: "Overview"]] ++
          Path.wildcard("guides/*.md") ++ Enum.filter(["CHANGELOG.md"], &File.exists?/1),
      groups_for_extras: [Guides: ~r"guides/"],
      groups_for_modules: [
        "Plug and Phoenix": [
          SessionServerStore,
          SessionServerStore.Plug,
          SessionHeaderPlug,
          SessionServerStore.LiveView
        ],
        "Without Plug": [
          SessionServerStore.Store,
          SessionServerStore.Session,
          SessionServerStore.SessionInfo,
          SessionServerStore.Error
        ],
        Operation: [SessionServerStore.Application, SessionServerStore.Telemetry]
      ]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # A directory with checkouts of optional dependencies and what those need, for development without
  # Hex.
  defp deps_path, do: System.get_env("SSS_DEPS_PATH")

  # Tests and behaviours that are compiled depend on Plug: builds with and without it must not share
  # a directory.
  defp build_path(nil), do: "_build"
  defp build_path(_), do: "_build/with_deps"

  defp deps(nil) do
    if Code.ensure_loaded?(Hex) do
      [
        {:plug, "~> 1.14", optional: true},
        {:phoenix_pubsub, "~> 2.1", optional: true},
        {:phoenix_live_view, "~> 1.0", optional: true},
        {:telemetry, "~> 1.0", optional: true},
        {:ex_doc, "~> 0.34", only: :dev, runtime: false}
      ]
    else
      []
    end
  end

  defp deps(path) do
    for app <-
          ~w(telemetry mime plug_crypto plug)a ++
            ~w(hpax websock thousand_island bandit)a ++
            ~w(phoenix_pubsub phoenix_html phoenix_template websock_adapter phoenix phoenix_live_view jason)a,
        checkout = Path.join(path, "#{app}"),
        File.dir?(checkout),
        do: {app, path: checkout, override: true}
  end
end
