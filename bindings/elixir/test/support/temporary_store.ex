# The URL of a store for one test: a name in memory, a temporary directory, or a Redis prefix.
# SSS_TEST_ENGINE names the engine under test: memory (the default), lmdb, lmdb-power, or a kind of
# redis. For redis, tests/processes/with_redis.rs starts the servers and sets SSS_TEST_REDIS to
# their URL.
defmodule TemporaryStore do
  @moduledoc false

  defstruct [:engine, :name]

  def engine do
    engine = System.get_env("SSS_TEST_ENGINE", "memory")

    if engine not in ~w(memory lmdb lmdb-power) and not String.starts_with?(engine, "redis"),
      do: raise("SSS_TEST_ENGINE is #{engine}")

    engine
  end

  def new(engine \\ engine()) do
    name = "sss-elixir-#{System.pid()}-#{System.unique_integer([:positive])}"
    %__MODULE__{engine: engine, name: name}
  end

  @doc "The URL of the store, with these options."
  def url(temporary, options \\ [])
  def url(%{engine: "memory", name: name}, options), do: "memory:#{name}?" <> Enum.join(options, "&")

  def url(%{engine: "redis" <> _, name: name}, options) do
    base = System.fetch_env!("SSS_TEST_REDIS")
    Enum.join([String.replace(base, "{name}", name) | options], "&")
  end

  def url(%{engine: engine} = temporary, options) do
    # Each store reserves its whole file.
    sized? = Enum.any?(options, &String.starts_with?(&1, "max_bytes="))
    options = if sized?, do: options, else: options ++ ["max_bytes=16MiB"]
    options = if engine == "lmdb-power", do: options ++ ["durability=power"], else: options
    "lmdb:#{directory(temporary)}?" <> Enum.join(options, "&")
  end

  def directory(temporary), do: Path.join(System.tmp_dir!(), temporary.name)

  def remove(%{engine: "lmdb" <> _} = temporary), do: File.rm_rf!(directory(temporary))
  def remove(_), do: :ok
end
