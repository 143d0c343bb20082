# B4 and B5: `SessionServerStore.get/3` beside the two designs that an Elixir developer would
# otherwise have: an Agent that holds a map, and an ETS table as Plug.Session.ETS uses it. Prints
# facts, one per line.

defmodule Bench.AgentStore do
  # One process owns all the sessions, and every read is a message to it, because a read slides the
  # session.
  @idle 600
  @timeout 10_800

  def start, do: {:ok, _} = Agent.start_link(fn -> %{} end, name: __MODULE__)

  def put(sid, data), do: Agent.update(__MODULE__, &Map.put(&1, sid, {data, now(), now()}))

  def get(_conn, sid, _config) do
    Agent.get_and_update(__MODULE__, fn sessions ->
      time = now()

      case sessions do
        %{^sid => {data, created, seen}} when time < seen + @idle and time < created + @timeout ->
          {{sid, data}, %{sessions | sid => {data, created, time}}}

        %{^sid => _dead} ->
          {{nil, %{}}, Map.delete(sessions, sid)}

        _ ->
          {{nil, %{}}, sessions}
      end
    end)
  end

  defp now, do: :erlang.system_time(:second)
end

defmodule Bench.EtsStore do
  # A public table; a read writes the time of the read. Nothing expires.
  def start, do: :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])

  def put(sid, data), do: :ets.insert(__MODULE__, {sid, data, :os.timestamp()})

  def get(_conn, sid, table) do
    case :ets.lookup(table, sid) do
      [{^sid, data, _seen}] ->
        :ets.update_element(table, sid, {3, :os.timestamp()})
        {sid, data}

      [] ->
        {nil, %{}}
    end
  end
end

defmodule Bench do
  alias Bench.{AgentStore, EtsStore}
  alias SessionServerStore.Store

  def main(args) do
    quick = "--quick" in args
    {n, rounds, calls} = if quick, do: {20_000, 7, 4_000}, else: {100_000, 11, 24_000}

    {:ok, _} = Application.ensure_all_started(:session_server_store)
    {:ok, raw} = Store.open("memory:", raw: true)
    AgentStore.start()
    EtsStore.start()
    config = SessionServerStore.init([])

    ids =
      for i <- 1..n do
        data = session(i)
        sid = SessionServerStore.put(nil, nil, data, config)
        AgentStore.put(sid, data)
        EtsStore.put(sid, data)
        {:ok, raw_sid, _} = Store.create(raw, :erlang.term_to_binary(data))
        {sid, raw_sid}
      end

    raw_ids = ids |> Enum.map(&elem(&1, 1)) |> List.to_tuple()
    ids = ids |> Enum.map(&elem(&1, 0)) |> List.to_tuple()

    sid = elem(ids, 7)
    {^sid, data} = SessionServerStore.get(nil, sid, config)
    {^sid, ^data} = AgentStore.get(nil, sid, nil)
    {^sid, ^data} = EtsStore.get(nil, sid, EtsStore)
    encoded = :erlang.term_to_binary(data)
    fact("b4.session_bytes", [byte_size(encoded)])

    runners = [
      sss: {ids, &SessionServerStore.get(nil, &1, config)},
      agent: {ids, &AgentStore.get(nil, &1, nil)},
      ets: {ids, &EtsStore.get(nil, &1, EtsStore)},
      native: {raw_ids, &Store.get(raw, &1)},
      decode: {ids, fn _ -> :erlang.binary_to_term(encoded) end}
    ]

    times =
      for processes <- [1, 8], into: %{} do
        Enum.each(runners, fn {_, {ids, get}} -> measure(ids, get, processes, div(calls, 8)) end)

        # The stores alternate, in another order each round.
        measured =
          for round <- 1..rounds do
            {last, first} = Enum.split(runners, rem(round, length(runners)))
            Map.new(first ++ last, fn {name, {ids, get}} -> {name, measure(ids, get, processes, calls)} end)
          end

        {processes, measured}
      end

    for {processes, rounds} <- times do
      compare = fn a, b -> Enum.map(rounds, &(&1[a] / &1[b])) end
      fact("b4.sss_#{processes}_ns", Enum.map(rounds, & &1.sss))
      fact("b4.agent_#{processes}_ns", Enum.map(rounds, & &1.agent))
      fact("b5.ets_#{processes}_ns", Enum.map(rounds, & &1.ets))
      fact("b4.times_#{processes}", compare.(:agent, :sss))
      fact("b5.ratio_#{processes}", compare.(:sss, :ets))
    end

    fact("b5.native_ns", Enum.map(times[1], & &1.native))
    fact("b5.decode_ns", Enum.map(times[1], & &1.decode))
  end

  # Nanoseconds per get of all processes together: from the start signal until the last process is
  # done.
  defp measure(ids, get, processes, calls) do
    main = self()
    each = div(calls, processes)

    workers =
      for _ <- 1..processes do
        # Copies of their own, as a request brings its id with it.
        mine = for _ <- 1..each, do: :binary.copy(elem(ids, :rand.uniform(tuple_size(ids)) - 1))

        spawn_link(fn ->
          # Here, before the time begins, and not a part of the closure that shares the terms of
          # others.
          mine = Enum.map(mine, &:binary.copy/1)
          send(main, {:ready, self()})
          receive do: (:go -> :ok)
          Enum.each(mine, get)
          send(main, {:done, self()})
        end)
      end

    for worker <- workers, do: receive(do: ({:ready, ^worker} -> :ok))
    start = System.monotonic_time(:nanosecond)
    for worker <- workers, do: send(worker, :go)
    for worker <- workers, do: receive(do: ({:done, ^worker} -> :ok))
    (System.monotonic_time(:nanosecond) - start) / (each * processes)
  end

  # The session of a visitor of a small shop: about a kilobyte in the external term format.
  defp session(i) do
    %{
      "_csrf_token" => Base.url_encode64(:crypto.strong_rand_bytes(18)),
      "live_socket_id" => "users_sessions:" <> Base.url_encode64(:crypto.strong_rand_bytes(32)),
      "user_id" => i,
      "user_token" => :crypto.strong_rand_bytes(32),
      "locale" => "en",
      "flash" => %{"info" => "Welcome back!"},
      "return_to" => "/orders/#{i}/confirm?step=3",
      "cart" =>
        for line <- 1..8 do
          %{
            "sku" => "SKU-#{i * 8 + line}",
            "quantity" => line,
            "price_cents" => 1999 + line,
            "title" => "A thing we sell"
          }
        end,
      "seen" => Enum.map(1..12, &(i * 100 + &1)),
      "logged_in_at" => 1_700_000_000 + i
    }
  end

  defp fact(name, values) do
    sorted = Enum.sort(values)
    IO.puts("#{name}\t#{Enum.at(sorted, div(length(sorted), 2))}")
    IO.puts("#{name}.min\t#{hd(sorted)}\n#{name}.max\t#{List.last(sorted)}")
  end
end

Bench.main(System.argv())
