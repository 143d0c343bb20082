# The Elixir worker of tests/interop.py, which describes the protocol: raw bytes through
# SessionServerStore.Store.
defmodule Worker do
  alias SessionServerStore.{Error, Store}

  def main do
    {:ok, out} = :file.open("/dev/stdout", [:append, :raw])
    Process.put(:out, out)
    run(nil)
  end

  defp run(store) do
    case IO.gets("") do
      line when is_binary(line) ->
        [verb | words] = String.split(line)
        {store, text} = run_command(verb, words, store)
        reply(text)
        run(store)

      :eof ->
        :ok
    end
  end

  defp run_command("open", [url], _store) do
    {:ok, store} = Store.open(url, raw: true)
    {store, "ok"}
  end

  defp run_command(verb, words, store), do: {store, reply_text(call(verb, words, store))}

  defp call("create", [data, principal], s), do: Store.create(s, unhex(data), principal: unhex(principal))
  defp call("get", [sid], s), do: with({:ok, it} <- Store.get(s, sid), do: {:ok, "#{it.version} #{tohex(it.data)}"})

  defp call("put_if", [sid, version, data], s),
    do: with({:ok, it} <- Store.put_if(s, sid, String.to_integer(version), unhex(data)), do: {:ok, it.version})

  defp call("renew", [sid], s), do: Store.renew(s, sid)
  defp call("delete", [sid], s), do: Store.delete(s, sid)
  defp call("list", [principal], s), do: with({:ok, list} <- Store.list(s, unhex(principal)), do: {:ok, length(list)})
  defp call("revoke", [principal], s), do: Store.revoke(s, unhex(principal))
  defp call("count", [sid, times], s), do: count(s, sid, String.to_integer(times))

  defp count(_store, _sid, 0), do: :ok

  defp count(store, sid, times) do
    with {:ok, session} <- Store.get(store, sid) do
      next = Integer.to_string(String.to_integer(session.data) + 1)

      case Store.put_if(store, sid, session.version, next) do
        {:ok, _} ->
          reply("counted")
          count(store, sid, times - 1)

        {:error, %Error{reason: :conflict}} ->
          count(store, sid, times)

        other ->
          other
      end
    end
  end

  defp reply_text(:ok), do: "ok"
  defp reply_text({:ok, sid, _session}), do: "ok #{sid}"
  defp reply_text({:ok, value}), do: "ok #{value}"
  defp reply_text({:error, :not_found}), do: "not_found"
  defp reply_text({:error, %Error{reason: reason}}), do: "#{reason}"

  # One write(2). IO.puts returns before the line is written, and a killed VM would lose it.
  defp reply(text), do: :ok = :file.write(Process.get(:out), "= #{text}\n")

  defp unhex(word), do: word |> String.replace("-", "") |> Base.decode16!(case: :lower)
  defp tohex(""), do: "-"
  defp tohex(data), do: Base.encode16(data, case: :lower)
end

Worker.main()
