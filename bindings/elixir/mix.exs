# The Mix project, and the compiler that builds the NIF with cargo. The compiler is defined here
# because it must exist before the project is compiled. Must load without Hex: Mix aborts on a Hex
# dependency if Hex is missing.
defmodule Mix.Tasks.Compile.SssNif do
  @moduledoc false
  use Mix.Task.Compiler

  @crate Path.expand("native/sss_nif", __DIR__)

  @impl true
  def run(_args) do
    # In the build directory, so that the source tree stays clean and every environment has its own
    # copy.
    target = Path.join(Mix.Project.app_path(), "priv/sss_nif.so")
    built = prebuilt(System.get_env("SSS_NIF_PATH")) || cargo_build(_quiet = File.exists?(target))
    if same?(built, target), do: {:noop, []}, else: install(built, target)
  end

  @impl true
  def clean, do: File.rm(Path.join(Mix.Project.app_path(), "priv/sss_nif.so"))

  defp prebuilt(nil), do: nil
  defp prebuilt(path), do: if(File.regular?(path), do: path, else: Mix.raise("SSS_NIF_PATH is not a file: #{path}"))

  defp cargo_build(quiet) do
    cargo =
      System.find_executable("cargo") ||
        Mix.raise("""
        session_server_store is built with cargo, which was not found.
        Install Rust 1.95 or later (https://rustup.rs), or set SSS_NIF_PATH to a library that was built elsewhere.
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

  defp same?(built, target) do
    case File.read(target) do
      {:ok, bytes} -> bytes == File.read!(built)
      {:error, _} -> false
    end
  end

  # By renaming: a running VM has the old file mapped, and would crash if it were overwritten.
  defp install(built, target) do
    File.mkdir_p!(Path.dirname(target))
    File.cp!(built, target <> ".new")
    File.rename!(target <> ".new", target)
    {:ok, []}
  end
end

defmodule SessionServerStore.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :session_server_store,
      version: @version,
      elixir: "~> 1.14",
      name: "SessionServerStore",
      description: "A server-side session store for Plug: sessions that can be updated, destroyed and expired",
      package: [
        licenses: ["Apache-2.0", "MIT"],
        links: %{},
        files: ~w(lib native mix.exs README.md .formatter.exs),
        exclude_patterns: ["native/sss_nif/target"]
      ],
      compilers: [:sss_nif] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      # The plugs compile without Plug, which is optional, like telemetry.
      xref: [exclude: [Plug.Conn, Plug.Session, Plug.Session.Store, Phoenix.LiveView, Phoenix.PubSub, :telemetry]],
      start_permanent: Mix.env() == :prod,
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
