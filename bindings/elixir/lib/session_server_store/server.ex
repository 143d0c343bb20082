# The process of a store with a name: opens the store, removes expired sessions on a timer, a bounded
# number in each step, and reports statistics. The store is kept outside of all processes, so that
# this one can die at any time.
defmodule SessionServerStore.Server do
  @moduledoc false
  use GenServer

  alias SessionServerStore.{Arguments, Closer, Duration, Error, Native, Store}

  require Logger

  @sessions_per_step 1_000
  # The VM refuses timers of more than some 290 years.
  @max_timer_ms 4_294_967_295

  @defaults [url: "memory:", sweep_interval: 60, stats_interval: nil, pubsub: nil]

  @doc "The options besides `:name`, with their defaults."
  @spec defaults :: keyword
  def defaults, do: @defaults

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts) do
    {name, opts} = opts |> Arguments.keyword!() |> Keyword.pop(:name)
    Arguments.store_name!(name)

    for {key, _value} <- opts, not Keyword.has_key?(@defaults, key) do
      raise ArgumentError,
            "unknown option #{inspect(key)} of the store #{inspect(name)}: " <>
              "the options are :name, #{Enum.map_join(@defaults, ", ", &inspect(elem(&1, 0)))}"
    end

    opts = Keyword.merge(@defaults, opts)
    Arguments.url!(opts[:url])
    pubsub!(opts[:pubsub])
    opts = Keyword.update!(opts, :stats_interval, &(&1 || stats_interval(opts[:url])))
    intervals = for timer <- [:sweep, :stats], key = :"#{timer}_interval", do: {timer, Duration.to_ms!(key, opts[key])}
    start_process(name, {name, opts[:url], opts[:pubsub], intervals})
  end

  # The statistics of a Redis server take a scan of all sessions.
  defp stats_interval("redis" <> _), do: :infinity
  defp stats_interval(_url), do: 60

  # The supervisor of a supervisor that was killed may be faster than the killed one's children,
  # which are about to exit.
  defp start_process(name, argument) do
    with {:error, {:already_started, pid}} = error <- GenServer.start_link(__MODULE__, argument, name: name) do
      if orphan?(pid) do
        monitor = Process.monitor(pid)
        receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> start_process(name, argument))
      else
        error
      end
    end
  end

  defp orphan?(pid) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} -> not (dictionary[:"$ancestors"] |> hd() |> pid() |> alive?())
      nil -> true
    end
  end

  defp alive?(pid), do: pid != nil and Process.alive?(pid)

  @impl true
  def init({name, url, pubsub, intervals}) do
    # So that terminate/2 is called.
    Process.flag(:trap_exit, true)
    supervisor = top_supervisor(Process.get(:"$ancestors"))

    case Native.open_named(name, url, supervisor) do
      :ok ->
        store = Store.register(name, url, pubsub)
        {:ok, %{name: name, store: store, supervisor: supervisor, intervals: intervals}, {:continue, :start_timers}}

      # With a stacktrace, a supervisor's report shows the message of the exception instead of its
      # fields.
      {:error, {reason, code, message}} ->
        error = Error.new(reason, code, "the store #{inspect(name)} cannot be opened#{place(url)}: #{message}")
        {:current_stacktrace, stacktrace} = Process.info(self(), :current_stacktrace)
        {:stop, {error, stacktrace}}
    end
  end

  @impl true
  def handle_continue(:start_timers, state) do
    for {timer, _interval} <- state.intervals, do: start_timer(timer, state)
    {:noreply, state}
  end

  @impl true
  def handle_info(:sweep, state) do
    case Store.sweep(state.store, @sessions_per_step) do
      {:ok, @sessions_per_step} ->
        # There may be more. Other messages are handled first.
        send(self(), :sweep)

      {:ok, _all} ->
        start_timer(:sweep, state)

      {:error, error} ->
        Logger.warning("expired sessions could not be removed: #{Exception.message(error)}")
        start_timer(:sweep, state)
    end

    {:noreply, state}
  end

  def handle_info(:stats, state) do
    Store.report_stats(state.store)
    start_timer(:stats, state)
    {:noreply, state}
  end

  def handle_info(_exit_of_a_linked_process, state), do: {:noreply, state}

  # After a crash of this process or of its supervisor the store stays open.
  @impl true
  def terminate(reason, state) do
    if orderly?(reason), do: Closer.stopped(state.name, state.supervisor)
  end

  defp orderly?(reason), do: reason in [:normal, :shutdown] or match?({:shutdown, _}, reason)

  defp start_timer(timer, state) do
    case state.intervals[timer] do
      :infinity -> :ok
      ms -> Process.send_after(self(), timer, min(ms, @max_timer_ms))
    end
  end

  # The top of the supervision tree that this process belongs to. A tree starts its processes again,
  # also with new supervisors below the top: the sessions must survive that.
  defp top_supervisor([parent | others]),
    do: others |> Enum.map(&pid/1) |> Enum.take_while(&supervisor?/1) |> List.last(pid(parent))

  defp supervisor?(pid), do: alive?(pid) and match?({:supervisor, _, _}, :proc_lib.translate_initial_call(pid))

  defp pid(pid) when is_pid(pid), do: pid
  defp pid(name), do: Process.whereis(name)

  # The directory. Other URLs may hold a password.
  defp place("lmdb:" <> rest), do: " in #{rest |> String.split("?") |> hd()}"
  defp place(_url), do: ""

  defp pubsub!(nil), do: :ok

  defp pubsub!(pubsub) do
    if not is_atom(pubsub), do: Arguments.invalid!(":pubsub must be the name of a Phoenix.PubSub", pubsub)
    if not Code.ensure_loaded?(Phoenix.PubSub), do: raise(ArgumentError, ":pubsub needs the package phoenix_pubsub")
  end
end
