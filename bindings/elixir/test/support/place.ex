# Where a store of its own is, of the engine under test: a name in memory, a directory under TMPDIR that is removed again, or a
# prefix in a Redis server. SSS_TEST_ENGINE is memory (also if it is not set), lmdb, lmdb-power, or one of redis, for which
# tests/processes/with_redis.rs starts the servers and says in SSS_TEST_REDIS what the URLs are.
defmodule Place do
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

  @doc "The URL of the store there, with these options."
  def url(place, options \\ [])
  def url(%{engine: "memory", name: name}, options), do: "memory:#{name}?" <> Enum.join(options, "&")

  def url(%{engine: "redis" <> _, name: name}, options) do
    base = System.fetch_env!("SSS_TEST_REDIS")
    Enum.join([String.replace(base, "{name}", name) | options], "&")
  end

  def url(%{engine: engine} = place, options) do
    # Tests make many stores, and each file is reserved as a whole.
    sized? = Enum.any?(options, &String.starts_with?(&1, "max_bytes="))
    options = if sized?, do: options, else: options ++ ["max_bytes=16MiB"]
    options = if engine == "lmdb-power", do: options ++ ["durability=power"], else: options
    "lmdb:#{directory(place)}?" <> Enum.join(options, "&")
  end

  def directory(place), do: Path.join(System.tmp_dir!(), place.name)

  def remove(%{engine: "lmdb" <> _} = place), do: File.rm_rf!(directory(place))
  def remove(_), do: :ok
end
