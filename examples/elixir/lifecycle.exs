# lifecycle.exs: a session from a guest's first page to its expiry, through the Elixir API and
# through the Plug store. Prints every step, and fails if a result is not the documented one. Never
# prints a whole id: an id is a secret.
#
#     cd bindings/elixir && mix run ../../examples/elixir/lifecycle.exs

defmodule Lifecycle do
  alias SessionServerStore.{Error, Store}

  def run do
    # A manual clock, which only the program moves.
    url = "memory:?timeout=3h&idle_timeout=10m&clock=manual"
    {:ok, store} = step("open", "a store in the memory of this VM", Store.open(url))

    # A guest's first request: the new id goes to the client as a cookie, the data stays here. Data
    # is any term.
    {:ok, guest, _} = step("create", "a session for a guest", Store.create(store, %{cart: 1}))

    # The next request has the id in its cookie.
    {:ok, %{data: %{cart: 1}, version: 1}} = step("get", "what the session holds", Store.get(store, guest))

    # Two requests of one user may run at the same time: put_if writes only if the session is still
    # as it was read.
    {:ok, %{version: 2}} = step("put_if", "an update of version 1", Store.put_if(store, guest, 1, %{cart: 2}))

    {:error, %Error{reason: :conflict}} =
      step("put_if", "another update of version 1", Store.put_if(store, guest, 1, %{cart: 9}))

    # Login: a new id, so that an attacker who planted or knew the old one has nothing (session
    # fixation). Both timeouts restart.
    {:ok, laptop, _} =
      step(
        "renew",
        "the session, as the guest logs in as alice",
        Store.renew(store, guest, data: %{user: "alice", cart: 2}, principal: "alice", label: "laptop")
      )

    {:error, :not_found} = step("get", "the id from before the login", Store.get(store, guest))
    {:ok, %{data: %{user: "alice", cart: 2}}} = step("peek", "the new id", Store.peek(store, laptop))

    # A second device, a minute later.
    :ok = step("advance", "the clock by 1 minute", Store.advance_clock(store, {1, :minute}))

    {:ok, phone, _} =
      step(
        "create",
        "a session for alice's phone",
        Store.create(store, %{user: "alice"}, principal: "alice", label: "phone")
      )

    # "Your devices": a reference names a session without giving access to it.
    {:ok, [_, newest] = devices} = step("list", "the sessions of alice", Store.list(store, "alice"))

    for device <- devices do
      idle = div(newest.last_seen_ms - device.last_seen_ms, 1000)
      ref = device.ref |> binary_part(0, 4) |> Base.encode16(case: :lower)

      IO.puts(
        "             #{String.pad_trailing(device.label, 6)}  ref #{ref}…  #{device.size} bytes  idle for #{idle} s"
      )
    end

    {:error, :not_found} =
      step("delete_ref", "the phone's session, as mallory", Store.delete_ref(store, newest.ref, principal: "mallory"))

    # "Log out my other devices."
    {:ok, 1} = step("revoke", "all sessions of alice but the laptop's", Store.revoke(store, "alice", except: laptop))
    {:error, :not_found} = step("get", "the phone's session", Store.get(store, phone))
    {:ok, %{data: %{user: "alice"}}} = step("get", "the laptop's session", Store.get(store, laptop))

    # A password again, before something that matters.
    {:ok, laptop, %{authenticated_ms: now}} =
      step("renew", "the laptop's session, reauthenticated", Store.renew(store, laptop, reauthenticated: true))

    {:ok, %{last_seen_ms: ^now}} = step("get", "it under its new id", Store.get(store, laptop))

    # Each use restarts the idle timeout of 10 minutes.
    :ok = step("advance", "the clock by 9 minutes", Store.advance_clock(store, {9, :minute}))
    {:ok, touched} = step("touch", "the laptop's session, in time", Store.touch(store, laptop))
    600_000 = touched.expires_ms - touched.last_seen_ms
    :ok = step("advance", "the clock by 10 minutes", Store.advance_clock(store, {10, :minute}))
    {:error, :not_found} = step("get", "the laptop's session, idle for too long", Store.get(store, laptop))

    {:error, :not_found} =
      step("put", "to it: an ended session never comes back", Store.put(store, laptop, %{user: "alice"}))

    # A store with a name sweeps itself on a timer.
    {:ok, 1} = step("sweep", "up to 1000 expired sessions", Store.sweep(store, 1000))

    {:ok, %{sessions: 0, bytes: 0, created: 2, renewed: 2, revoked: 1, expired: 1}} =
      step("stats", "of the store", Store.stats(store))

    :ok = step("close", "the store", Store.close(store))
    {:error, %Error{reason: :handle}} = step("get", "anything from it", Store.get(store, laptop))

    IO.puts("\nThrough the callbacks of Plug.Session, on the default store:\n")
    opts = SessionServerStore.init(timeout: 3600, idle_timeout: :infinity, principal_key: "user")
    sid = step("put", "a session without an id", SessionServerStore.put(nil, nil, %{"user" => "bob"}, opts))
    {^sid, %{"user" => "bob"}} = step("get", "it by its cookie", SessionServerStore.get(nil, sid, opts))
    {:ok, 1} = step("revoke", "all sessions of bob", Store.revoke("bob"))
    {nil, empty} = step("get", "the stolen cookie, replayed", SessionServerStore.get(nil, sid, opts))
    0 = map_size(empty)
    ^sid = step("put", "under the ended id: stores nothing", SessionServerStore.put(nil, sid, %{"user" => "bob"}, opts))
    {nil, _} = step("get", "it once more", SessionServerStore.get(nil, sid, opts))

    IO.puts("\nAll results were as documented.")
  end

  # Prints a step and its result. The caller's pattern ends the program if the result is another
  # one.
  defp step(verb, what, result) do
    number = Process.get(:step, 0) + 1
    Process.put(:step, number)
    number = String.pad_leading("#{number}", 2)
    IO.puts("#{number}. #{String.pad_trailing(verb, 11)}#{String.pad_trailing(what, 44)} -> #{describe(result)}")
    result
  end

  defp describe(:ok), do: "ok"
  defp describe({:error, :not_found}), do: "no such session"
  defp describe({:error, error}), do: Exception.message(error)
  defp describe({:ok, sid, _session}), do: "ok, " <> describe(sid)
  defp describe({:ok, %Store{}}), do: "ok"
  defp describe({:ok, %{data: nil} = session}), do: "ok, expires in #{minutes(session)} minutes"
  defp describe({:ok, %{data: data, version: version}}), do: "ok, #{inspect(data)}, version #{version}"
  defp describe({:ok, devices}) when is_list(devices), do: "ok, #{length(devices)} sessions"
  defp describe({:ok, 1}), do: "ok, 1 session"
  defp describe({:ok, count}) when is_integer(count), do: "ok, #{count} sessions"

  defp describe({:ok, stats}),
    do: "ok, " <> Enum.map_join([:sessions, :created, :renewed, :revoked, :expired], ", ", &"#{stats[&1]} #{&1}")

  defp describe({nil, _}), do: "no session"
  defp describe({_sid, data}), do: "ok, #{inspect(data)}"
  defp describe(<<start::binary-size(4), _::binary>> = sid), do: "id #{start}…(#{byte_size(sid)})"

  defp minutes(session), do: div(session.expires_ms - session.last_seen_ms, 60_000)
end

try do
  Lifecycle.run()
rescue
  # Without the value that did not match, which may hold an id.
  MatchError ->
    IO.puts("    UNEXPECTED: this is not the documented result.")
    System.halt(1)
end
