# Closes stores whose process was stopped for good. A supervision tree that stops a process may start
# it again, as it does when a sibling has crashed, and the sessions must survive that: a store closes
# when the top supervisor ends. Must not close a store whose process has crashed.
defmodule SessionServerStore.Closer do
  @moduledoc false
  use GenServer

  alias SessionServerStore.Native

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_arg), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "The tree of this supervisor has stopped the process of this store in an orderly way."
  @spec stopped(name :: atom, supervisor :: pid) :: :ok
  def stopped(name, supervisor) do
    Native.stopped(name, supervisor)
    GenServer.cast(__MODULE__, {:stopped, name, supervisor})
  end

  @impl true
  def init(nil), do: {:ok, %{}}

  # One monitor for each supervisor.
  @impl true
  def handle_cast({:stopped, name, supervisor}, names) do
    if not is_map_key(names, supervisor), do: Process.monitor(supervisor)
    {:noreply, Map.update(names, supervisor, [name], &Enum.uniq([name | &1]))}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, supervisor, _reason}, names) do
    {stopped, names} = Map.pop(names, supervisor, [])
    for name <- stopped, do: Native.close_stopped(name, supervisor)
    {:noreply, names}
  end
end
