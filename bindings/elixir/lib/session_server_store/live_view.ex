# Keeps the session of a LiveView in use, and ends the LiveView with its session. Compiles without
# Phoenix.LiveView and is always defined, because that may be compiled or added after this package.
# Must not hold the id of the session.
defmodule SessionServerStore.LiveView do
  @moduledoc """
  Sessions of LiveViews. A socket stays open for hours and sends no cookies: without this module an
  active user is logged out by the idle timeout, and a revoked user can continue.

  Add `:ref_key` to the options that `Plug.Session` and the socket share:

      # endpoint.ex
      @session_options [
        store: SessionServerStore,
        name: MyApp.Sessions,
        key: "sid",
        principal_key: "user_id",
        ref_key: "session_ref"
      ]

      socket "/live", Phoenix.LiveView.Socket, websocket: [connect_info: [session: @session_options]]
      plug SessionServerStore.Plug, @session_options

      # router.ex
      live_session :users,
        on_mount: [{SessionServerStore.LiveView, name: MyApp.Sessions, redirect_to: "/login"}, MyAppWeb.UserAuth] do
        live "/", HomeLive
      end

      # application.ex: the sockets of a session that ends are disconnected at once
      {SessionServerStore, name: MyApp.Sessions, url: "memory:", pubsub: MyApp.PubSub}

  A connected LiveView then

    * uses its session (`SessionServerStore.Store.touch_ref/3`) when it is mounted, and when the
      client sends events or navigates, at most once per `:touch_interval`
    * checks every `:check_interval` whether the session still exists, without using it
    * redirects to `:redirect_to` if it does not

  It knows the session by its reference, which gives no access to the session's data. A LiveView
  without a reference in its session belongs to a visitor without a session, and is left alone. If the
  store is unavailable, the LiveView stays and the next check decides.

  ## At once

  If the store has a `:pubsub`, the sockets of a session are disconnected when it ends by
  `SessionServerStore.Store.delete/2`, `delete_ref/3`, `renew/3`, `revoke/3` or a logout through Plug,
  on each node that the PubSub reaches: with `:ref_key`, the session that LiveViews and channels read
  has a `"live_socket_id"` of its own, unless the application has set one.
  `SessionServerStore.Store.revoke_all/1` redirects all LiveViews that use this module. What ends in
  another way, such as an expired session, is found by the next check.

  ## Components

  Events of a `Phoenix.LiveComponent` with `phx-target` do not reach the LiveView. Call `touch/0` in
  the component's `handle_event/3`.

  ## Options

    * `:name` - the store. Default is the default store
    * `:ref_key` - the session key of the reference. Default is `"session_ref"`
    * `:redirect_to` - where to go when the session has ended. Default is `"/"`
    * `:touch_interval` - default is `60`. It should be well below the idle timeout
    * `:check_interval` - default is `30`; `:infinity` for never

  Intervals are seconds, or a number with a unit such as `{500, :millisecond}`.
  """

  alias Phoenix.LiveView
  alias SessionServerStore.{Arguments, Disconnect, Duration, Store}

  @defaults [
    name: SessionServerStore.Default,
    ref_key: "session_ref",
    redirect_to: "/",
    touch_interval: 60,
    check_interval: 30
  ]

  # The VM refuses timers of more than some 290 years.
  @max_timer_ms 4_294_967_295

  @doc "The hook, for `live_session` or `Phoenix.LiveView.on_mount/1`."
  @spec on_mount(keyword | :default, params :: term, session :: map, socket) :: {:cont | :halt, socket}
        when socket: struct
  def on_mount(:default, params, session, socket), do: on_mount([], params, session, socket)

  def on_mount(opts, _params, session, socket) do
    opts = options!(opts)

    # The request that renders the page first has used its session itself.
    with <<_::binary-size(32)>> = ref <- session[opts.ref_key], true <- LiveView.connected?(socket) do
      attach(socket, ref, opts)
    else
      _ -> {:cont, socket}
    end
  end

  @doc """
  Uses the session of the calling LiveView, at most once per `:touch_interval`: for events that do not
  reach the LiveView, such as those of components. Does nothing in other processes.
  """
  @spec touch :: :ok
  def touch do
    _alive = use_session()
    :ok
  end

  defp attach(socket, ref, opts) do
    # In the process dictionary, so that components find it.
    Process.put(__MODULE__, %{store: opts.name, ref: ref, touch_interval: opts.touch_interval, touched_ms: nil})
    state = Map.put(opts, :topics, subscribe(opts.name, ref))
    start_timer(state)

    socket
    |> LiveView.attach_hook(__MODULE__, :handle_event, fn _event, _params, socket -> used(socket, state) end)
    |> attach_to_navigation(state)
    |> LiveView.attach_hook(__MODULE__, :handle_info, &handle_info(&1, &2, state))
    |> used(state)
  end

  # Navigation reaches only LiveViews that are mounted by the router.
  defp attach_to_navigation(%{router: nil} = socket, _state), do: socket

  defp attach_to_navigation(socket, state),
    do: LiveView.attach_hook(socket, __MODULE__, :handle_params, fn _params, _uri, socket -> used(socket, state) end)

  defp subscribe(name, ref) do
    topics = [Disconnect.topic(ref), Disconnect.topic_of_all(name)]
    pubsub = Store.pubsub(name)
    if pubsub, do: for(topic <- topics, do: Phoenix.PubSub.subscribe(pubsub, topic))
    topics
  end

  defp handle_info({__MODULE__, :check}, socket, state) do
    start_timer(state)
    if alive?(_peek = true), do: {:halt, socket}, else: redirect(socket, state)
  end

  defp handle_info(%{event: "disconnect", topic: topic}, socket, state) do
    if topic in state.topics, do: redirect(socket, state), else: {:cont, socket}
  end

  defp handle_info(_other, socket, _state), do: {:cont, socket}

  defp used(socket, state), do: if(use_session(), do: {:cont, socket}, else: redirect(socket, state))

  defp redirect(socket, state), do: {:halt, LiveView.redirect(socket, to: state.redirect_to)}

  defp use_session do
    now = System.monotonic_time(:millisecond)

    case Process.get(__MODULE__) do
      nil ->
        true

      %{touched_ms: touched, touch_interval: interval} when touched != nil and now - touched < interval ->
        true

      session ->
        Process.put(__MODULE__, %{session | touched_ms: now})
        alive?(_peek = false)
    end
  end

  # A store that does not answer says nothing about the session.
  defp alive?(peek) do
    %{store: store, ref: ref} = Process.get(__MODULE__)
    Store.touch_ref(store, ref, peek: peek) != {:error, :not_found}
  end

  defp start_timer(%{check_interval: :infinity}), do: :ok

  defp start_timer(%{check_interval: ms}),
    do: Process.send_after(self(), {__MODULE__, :check}, min(ms, @max_timer_ms))

  defp options!(opts) do
    for {key, _value} <- Arguments.keyword!(opts), not Keyword.has_key?(@defaults, key) do
      raise ArgumentError,
            "unknown option #{inspect(key)}: the options of SessionServerStore.LiveView are " <>
              Enum.map_join(@defaults, ", ", &inspect(elem(&1, 0)))
    end

    opts = Keyword.merge(@defaults, opts)
    intervals = for key <- [:touch_interval, :check_interval], do: {key, Duration.to_ms!(key, opts[key])}
    Map.new(opts ++ intervals)
  end
end
