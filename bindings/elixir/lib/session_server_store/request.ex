# What the store remembers between the callbacks of one request, in the process dictionary: Plug
# passes only the id from one callback to the next, and a store cannot change the conn. A process may
# serve many requests, so an entry must count only for a request that sent its id.
defmodule SessionServerStore.Request do
  @moduledoc false

  alias SessionServerStore.Session

  @doc "The session that this request has read. Of each store, only the last one is kept."
  @spec remember(store :: atom, sid :: binary, Session.t()) :: :ok
  def remember(store, sid, session) do
    Process.put(__MODULE__, Map.put(all(), store, {sid, session}))
    :ok
  end

  @doc "The session of this id as it was read, or nil if it was not read in this process."
  @spec recall(store :: atom, sid :: binary | nil) :: Session.t() | nil
  def recall(store, sid) do
    case all() do
      %{^store => {^sid, session}} -> session
      _ -> nil
    end
  end

  @spec forget(store :: atom) :: :ok
  def forget(store) do
    Process.put(__MODULE__, Map.delete(all(), store))
    :ok
  end

  @doc "The sessions that were read for this conn, with their stores."
  @spec sessions(conn :: %{:req_headers => [{binary, binary}], optional(atom) => term}) :: [
          {store :: atom, sid :: binary, Session.t()}
        ]
  def sessions(%{req_headers: headers}) do
    for {store, {sid, session}} <- all(), sent?(headers, sid), do: {store, sid, session}
  end

  defp sent?(headers, sid), do: Enum.any?(headers, fn {_name, value} -> value =~ sid end)

  @doc "This request renews the session of this id: `put` for a new session follows."
  @spec begin_renewal(store :: atom, sid :: binary) :: :ok
  def begin_renewal(store, sid) do
    Process.put({__MODULE__, :renewal}, {store, sid})
    :ok
  end

  @spec take_renewal(store :: atom, conn :: term) :: (sid :: binary) | nil
  def take_renewal(store, conn) do
    with {^store, sid} <- Process.delete({__MODULE__, :renewal}),
         %{req_headers: headers} <- conn,
         true <- sent?(headers, sid) do
      sid
    else
      _ -> nil
    end
  end

  @doc "The session of this id has ended during the request: the client may hold the id of a newer one."
  @spec mark_ended(sid :: binary) :: :ok
  def mark_ended(sid) do
    Process.put({__MODULE__, :ended}, sid)
    :ok
  end

  @spec ended?(sid :: binary) :: boolean
  def ended?(sid), do: Process.get({__MODULE__, :ended}) == sid

  defp all, do: Process.get(__MODULE__, %{})
end
