# SessionServerStore.LiveView in a real Phoenix application: Bandit, a websocket, and the session in
# the store. The clock is moved by hand. One application, so the tests run one after another.
defmodule SessionServerStore.LiveViewTest do
  use ExUnit.Case, async: false
  @moduletag :phoenix
  @moduletag :capture_log
  @compile {:no_warn_undefined, [PhoenixApp]}
  import Eventually

  alias SessionServerStore.Store

  setup do
    PhoenixApp.configure()
    store = [url: "memory:?clock=manual&timeout=infinity&idle_timeout=10m"]
    for child <- PhoenixApp.children(store), do: start_supervised!(child)
    {:ok, port: PhoenixApp.port(), store: PhoenixApp.store()}
  end

  defp login(port, user, browser \\ %{}) do
    {200, "hello", browser} = LiveClient.get(port, "/login/#{user}", browser)
    browser
  end

  defp advance(store, minutes), do: :ok = Store.advance_clock(store, {minutes, :minute})

  defp live_views do
    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        dictionary[SessionServerStore.LiveView] do
      pid
    end
  end

  # Lets the LiveView use its session again.
  defp let_touch_interval_pass do
    for pid <- live_views() do
      :sys.replace_state(pid, fn state ->
        Process.put(SessionServerStore.LiveView, %{Process.get(SessionServerStore.LiveView) | touched_ms: nil})
        state
      end)
    end
  end

  test "page shows the user of the session", %{port: port, store: store} do
    browser = login(port, "alice")
    {200, page, after_page} = LiveClient.get(port, "/", browser)
    assert page =~ ~s(<p id="user">alice</p>)
    # The page's CSRF token was written to the session.
    assert after_page["sid"] == browser["sid"]
    {:ok, %{data: data}} = Store.get(store, browser["sid"])
    assert data |> Map.keys() |> Enum.sort() == ["_csrf_token", "user_id"]
    refute page =~ browser["sid"]
  end

  test "events keep the session in use", %{port: port, store: store} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)

    client =
      for _ <- 1..5, reduce: client do
        client ->
          advance(store, 9)
          let_touch_interval_pass()
          {:ok, client} = LiveClient.click(client, "click")
          client
      end

    assert {:ok, _} = Store.peek(store, browser["sid"])
    # Without an event, the checks keep nothing in use.
    advance(store, 10)
    assert LiveClient.wait_for_end(client) == {:redirected, "/ended"}
  end

  test "events use the session at a bounded rate", %{port: port, store: store} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)
    {:ok, before} = Store.peek(store, browser["sid"])
    advance(store, 5)
    {:ok, client} = LiveClient.click(client, "click")
    # Within the interval after the mount.
    assert {:ok, %{last_seen_ms: last_seen}} = Store.peek(store, browser["sid"])
    assert last_seen == before.last_seen_ms
    let_touch_interval_pass()
    {:ok, _client} = LiveClient.click(client, "click")
    assert {:ok, %{last_seen_ms: last_seen}} = Store.peek(store, browser["sid"])
    assert last_seen == before.last_seen_ms + 5 * 60_000
  end

  test "events of a component use the session", %{port: port, store: store} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)
    advance(store, 9)
    let_touch_interval_pass()
    {:ok, _client} = LiveClient.click(client, "use", %{cid: 1})
    advance(store, 9)
    assert {:ok, _} = Store.peek(store, browser["sid"])
  end

  test "event after the end redirects", %{port: port, store: store} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)
    for pid <- live_views(), do: :sys.suspend(pid)
    advance(store, 11)
    let_end = Task.async(fn -> LiveClient.click(client, "click") end)
    let_touch_interval_pass()
    for pid <- live_views(), do: :sys.resume(pid)
    assert Task.await(let_end, 50_000) == {:redirected, "/ended"}
  end

  for {how, function} <- [
        revoke: quote(do: fn store, _sid -> Store.revoke(store, "alice") end),
        delete_ref: quote(do: &Store.delete_ref(&1, elem(Store.ref(&1, &2), 1), principal: "alice")),
        delete: quote(do: &Store.delete(&1, &2)),
        renew: quote(do: &Store.renew(&1, &2))
      ] do
    test "#{how} disconnects at once", %{port: port, store: store} do
      browser = login(port, "alice")
      {:ok, client} = LiveClient.join(port, "/", browser)
      {:ok, other} = LiveClient.join(port, "/", login(port, "bob"))
      # The socket closes, or the LiveView redirects, whichever message comes first.
      unquote(function).(store, browser["sid"])
      assert LiveClient.wait_for_end(client) in [:closed, {:redirected, "/ended"}]
      assert {:ok, _} = LiveClient.click(other, "click")
    end
  end

  test "logout disconnects the other tabs", %{port: port} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)
    {200, "bye", after_logout} = LiveClient.get(port, "/logout", browser)
    assert after_logout == %{}
    assert LiveClient.wait_for_end(client) in [:closed, {:redirected, "/ended"}]
  end

  test "revoke except one keeps that one", %{port: port, store: store} do
    [phone, laptop] = for _ <- 1..2, do: login(port, "alice")
    [phone_view, laptop_view] = for browser <- [phone, laptop], do: elem(LiveClient.join(port, "/", browser), 1)
    assert Store.revoke(store, "alice", except: phone["sid"]) == {:ok, 1}
    assert LiveClient.wait_for_end(laptop_view) in [:closed, {:redirected, "/ended"}]
    assert {:ok, _} = LiveClient.click(phone_view, "click")
  end

  test "revoke_all ends every LiveView", %{port: port, store: store} do
    views = for user <- ["alice", "bob"], do: elem(LiveClient.join(port, "/", login(port, user)), 1)
    assert {:ok, 2} = Store.revoke_all(store)
    for view <- views, do: assert(LiveClient.wait_for_end(view) in [:closed, {:redirected, "/ended"}])
  end

  test "ended session cannot join again", %{port: port, store: store} do
    browser = login(port, "alice")
    {200, _page, browser} = LiveClient.get(port, "/", browser)
    {:ok, _} = Store.revoke(store, "alice")
    # A page of a visitor: the LiveView shows no user.
    {200, page, _} = LiveClient.get(port, "/", browser)
    assert page =~ ~s(<p id="user"></p>)
  end

  test "LiveView stays while the store is down", %{port: port, store: store} do
    browser = login(port, "alice")
    {:ok, client} = LiveClient.join(port, "/", browser)
    :ok = Store.close(store)
    let_touch_interval_pass()
    assert {:ok, client} = LiveClient.click(client, "click")
    [pid] = live_views()
    send(pid, {SessionServerStore.LiveView, :check})
    assert {:ok, _} = LiveClient.click(client, "click")
    eventually(fn -> live_views() == [pid] end)
  end

  describe "devices page of the guide" do
    defp login_with(port, agent) do
      {200, "hello", browser} = LiveClient.get(port, "/login/alice", %{}, "user-agent: #{agent}\r\n")
      browser
    end

    setup %{port: port, store: store} do
      phone = login_with(port, "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0")
      laptop = login_with(port, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36")
      refs = for browser <- [phone, laptop], do: Store.ref!(store, browser["sid"])
      {:ok, phone: phone, laptop: laptop, refs: refs}
    end

    defp end_device(client, ref), do: LiveClient.click(client, "end", %{value: %{ref: Base.url_encode64(ref)}})

    test "shows the labels and marks this device", %{port: port, phone: phone} do
      {200, page, _} = LiveClient.get(port, "/devices", phone)
      assert page =~ "Firefox on Android, 127.0.0.1"
      assert page =~ "Chrome on Linux, 127.0.0.1"
      assert [item] = for(item <- String.split(page, "<li>"), item =~ "this device", do: item)
      assert item =~ "Firefox"
    end

    test "needs a login", %{port: port} do
      assert {302, _, _} = LiveClient.get(port, "/devices")
    end

    test "ends another device", %{port: port, store: store, phone: phone, laptop: laptop, refs: [_, laptop_ref]} do
      {:ok, laptop_view} = LiveClient.join(port, "/", laptop)
      {:ok, client} = LiveClient.join(port, "/devices", phone)
      {:ok, _} = end_device(client, laptop_ref)
      assert LiveClient.wait_for_end(laptop_view) in [:closed, {:redirected, "/ended"}]
      assert Store.get(store, laptop["sid"]) == {:error, :not_found}
      assert {:ok, _} = Store.get(store, phone["sid"])
    end

    test "cannot end another user's device", %{port: port, store: store, refs: [phone_ref, _]} do
      {:ok, client} = LiveClient.join(port, "/devices", login(port, "mallory"))
      {:ok, _} = end_device(client, phone_ref)
      assert {:ok, _} = Store.touch_ref(store, phone_ref, peek: true)
    end

    test "ends all other devices", %{port: port, store: store, phone: phone, laptop: laptop} do
      {:ok, client} = LiveClient.join(port, "/devices", phone)
      {:ok, _} = LiveClient.click(client, "end_others")
      assert Store.get(store, laptop["sid"]) == {:error, :not_found}
      assert {:ok, _} = Store.get(store, phone["sid"])
    end

    test "ends all devices", %{port: port, store: store, phone: phone} do
      {:ok, client} = LiveClient.join(port, "/devices", phone)
      LiveClient.click(client, "end_all")
      assert Store.list(store, "alice") == {:ok, []}
    end
  end

  test "wrong options are named" do
    for {option, value} <- [check_interval: 0, touch_interval: "5", redirect: "/"] do
      assert_raise ArgumentError, ~r/#{option}/, fn ->
        SessionServerStore.LiveView.on_mount([{option, value}], %{}, %{}, %{})
      end
    end
  end
end
