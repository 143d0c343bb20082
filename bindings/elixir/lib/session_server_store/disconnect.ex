# Tells the sockets of a session that it has ended, through Phoenix.PubSub. Must work without Phoenix:
# only a store that was given a PubSub calls it.
defmodule SessionServerStore.Disconnect do
  @moduledoc false

  @prefix "session_server_store:"

  @doc """
  The topic of a session: the `id` of its sockets, with which Phoenix disconnects them.

  A reference gives no access to the session.
  """
  @spec topic(ref :: binary) :: String.t()
  def topic(ref), do: @prefix <> Base.url_encode64(ref, padding: false)

  @doc "The topic of all sessions of a store."
  @spec topic_of_all(store :: atom) :: String.t()
  def topic_of_all(store), do: "#{@prefix}all:#{inspect(store)}"

  @spec topic?(term) :: boolean
  def topic?(value), do: is_binary(value) and String.starts_with?(value, @prefix)

  @spec broadcast(pubsub :: atom, topic :: String.t()) :: :ok
  def broadcast(pubsub, topic) do
    # The struct of Phoenix, which may not be there at compile time.
    message = %{__struct__: Phoenix.Socket.Broadcast, topic: topic, event: "disconnect", payload: %{}}
    Phoenix.PubSub.broadcast(pubsub, topic, message)
    :ok
  end
end
