# The store under the real Plug.Session, as a browser with a cookie sees it.
defmodule SessionServerStore.PlugSessionTest do
  use ExUnit.Case, async: true
  @moduletag :plug
  @compile {:no_warn_undefined, [Plug.Conn, Plug.Session, Plug.Session.Store, Plug.Test]}

  alias SessionServerStore.Store

  # A browser is a map of its cookies. Returns the response, and the browser as the response changed
  # it.
  defp request(app, method, path, browser) do
    header = Enum.map_join(browser, "; ", fn {name, value} -> "#{name}=#{value}" end)
    conn = Plug.Test.conn(method, path)
    conn = if header == "", do: conn, else: Plug.Conn.put_req_header(conn, "cookie", header)
    conn = app.call(conn, app.init([]))

    browser =
      Enum.reduce(conn.resp_cookies, browser, fn
        {name, %{max_age: 0}}, browser -> Map.delete(browser, name)
        {name, %{value: value}}, browser -> Map.put(browser, name, value)
      end)

    {conn, browser}
  end

  defp post(path, browser, app \\ Pipelines.Cookie), do: request(app, :post, path, browser)
  defp get(path, browser, app \\ Pipelines.Cookie), do: request(app, :get, path, browser)
  defp body({conn, _browser}), do: conn.resp_body

  test "unwritten session sets no cookie" do
    {conn, browser} = get("/whoami", %{})
    assert conn.resp_body == "guest"
    assert browser == %{}
    assert Plug.Conn.get_resp_header(conn, "set-cookie") == []
  end

  test "session keeps its id over requests" do
    {conn, browser} = post("/count", %{})
    assert conn.resp_body == "1"
    assert browser["sid"] =~ ~r/\A[A-Za-z0-9_-]{128}\z/
    assert %{max_age: 86_400, same_site: "Lax"} = conn.resp_cookies["sid"]

    {conn, again} = post("/count", browser)
    assert conn.resp_body == "2"
    assert again == browser
    assert body(post("/count", browser)) == "3"
  end

  test "read sets no cookie" do
    {_, browser} = post("/count", %{})
    {conn, _} = get("/whoami", browser)
    assert conn.resp_cookies == %{}
  end

  test "browsers have separate sessions" do
    {_, one} = post("/count", %{})
    {_, two} = post("/count", %{})
    assert one != two
    assert body(post("/count", one)) == "2"
    assert body(post("/count", one)) == "3"
    assert body(post("/count", two)) == "2"
  end

  test "login replaces the id, keeps the data" do
    {_, visitor} = post("/count", %{})
    {_, alice} = post("/login/alice-1", visitor)
    assert alice["sid"] != visitor["sid"]
    assert body(get("/whoami", alice)) == "alice-1"
    assert body(post("/count", alice)) == "2"
    assert body(get("/whoami", visitor)) == "guest"
    assert body(post("/count", visitor)) == "1"
  end

  test "planted id is not logged in" do
    planted = %{"sid" => String.duplicate("a", 128)}
    {_, alice} = post("/login/alice-2", planted)
    assert alice["sid"] != planted["sid"]
    assert body(get("/whoami", planted)) == "guest"
    assert body(get("/whoami", alice)) == "alice-2"
  end

  test "unknown id is replaced on write" do
    planted = %{"sid" => "chosen-by-the-client"}
    {_, browser} = post("/count", planted)
    assert byte_size(browser["sid"]) == 128
    assert body(post("/count", browser)) == "2"
    assert body(post("/count", planted)) == "1"
  end

  test "logout ends session and cookie" do
    {_, alice} = post("/login/alice-3", %{})
    stolen = alice
    {conn, alice} = post("/logout", alice)
    assert alice == %{}
    assert %{max_age: 0} = conn.resp_cookies["sid"]
    assert body(get("/whoami", stolen)) == "guest"
    assert {:error, :not_found} = Store.get(stolen["sid"])
  end

  test "logout without a session sets no cookie" do
    {conn, _} = post("/logout", %{})
    assert conn.resp_cookies == %{}
  end

  test "renew replaces the id, keeps the data" do
    {_, before} = post("/count", %{})
    {_, after_renewal} = post("/renew", before)
    assert before["sid"] != after_renewal["sid"]
    assert body(post("/count", after_renewal)) == "2"
    assert body(post("/count", before)) == "1"
  end

  test "renewed empty session is not stored" do
    {_, browser} = post("/renew", %{})
    assert byte_size(browser["sid"]) == 128
    assert {:error, :not_found} = Store.get(browser["sid"])
    {_, next} = post("/count", browser)
    assert next["sid"] != browser["sid"]
  end

  test "clear ends the session" do
    {_, browser} = post("/login/alice-4", %{})
    {conn, _} = post("/clear", browser)
    assert conn.status == 200
    assert body(get("/whoami", browser)) == "guest"
    assert {:error, :not_found} = Store.get(browser["sid"])
  end

  test "ignored change is not stored" do
    {_, browser} = post("/count", %{})
    {_, browser} = post("/ignore", browser)
    assert body(post("/count", browser)) == "2"
  end

  test "session ended during a request stays ended" do
    {_, browser} = post("/count", %{})
    {conn, browser} = post("/overtaken", browser)
    assert conn.status == 200
    assert {:error, :not_found} = Store.get(browser["sid"])
    assert body(post("/count", browser)) == "1"
  end

  test "late write leaves the cookie of a login alone" do
    {_, visitor} = post("/count", %{}, Pipelines.OwnCookie)
    # The second tab logs in while the request of the first one is under way.
    {conn, browser} = post("/login-meanwhile/alice-5", visitor, Pipelines.OwnCookie)
    assert conn.status == 200
    assert Plug.Conn.get_resp_header(conn, "set-cookie") == []
    assert browser == visitor
    # The browser has the cookie of the login, which still works.
    assert [sid] = Plug.Conn.get_resp_header(conn, "x-new-sid")
    assert body(get("/whoami", %{"sid" => sid}, Pipelines.OwnCookie)) == "alice-5"
  end

  test "own plug behaves like Plug.Session" do
    app = Pipelines.OwnCookie
    {conn, visitor} = post("/count", %{}, app)
    assert %{max_age: 86_400, same_site: "Lax"} = conn.resp_cookies["sid"]
    {_, alice} = post("/login/alice-6", visitor, app)
    assert alice["sid"] != visitor["sid"]
    assert body(post("/count", alice, app)) == "2"
    {conn, browser} = post("/logout", alice, app)
    assert browser == %{}
    assert %{max_age: 0} = conn.resp_cookies["sid"]
  end

  test "guide imports the session of a cookie store" do
    cookie_options = [store: :cookie, key: "_my_app_key", signing_salt: "…"]
    secret = String.duplicate("s", 64)
    conn = %{Plug.Test.conn(:get, "/") | secret_key_base: secret}
    conn = Plug.Session.call(conn, Plug.Session.init(cookie_options)) |> Plug.Conn.fetch_session()
    conn = conn |> Plug.Conn.put_session("user_id", "alice-7") |> Plug.Conn.send_resp(200, "")
    old = conn.resp_cookies["_my_app_key"].value

    import_session = fn cookies ->
      conn =
        Enum.reduce(cookies, Plug.Test.conn(:get, "/"), fn {k, v}, conn -> Plug.Test.put_req_cookie(conn, k, v) end)

      options = SessionServerStore.Plug.init(key: "sid", principal_key: "user_id")
      conn = %{conn | secret_key_base: secret} |> SessionServerStore.Plug.call(options) |> Plug.Conn.fetch_session()
      importer = MyAppWeb.ImportCookieSession
      conn = importer.call(conn, importer.init([]))
      Plug.Conn.send_resp(conn, 200, Plug.Conn.get_session(conn, "user_id") || "guest")
    end

    conn = import_session.([{"_my_app_key", old}])
    assert conn.resp_body == "alice-7"
    assert %{"sid" => %{value: sid}, "_my_app_key" => %{max_age: 0}} = conn.resp_cookies
    assert {:ok, [_]} = Store.list("alice-7")
    assert import_session.([{"sid", sid}]).resp_body == "alice-7"
    assert import_session.([{"_my_app_key", old <> "x"}]).resp_body == "guest"
  end

  test "reauthentication renews the session" do
    {_, alice} = post("/login/alice-8", %{}, Pipelines.OwnCookie)
    {:ok, before} = Store.peek(alice["sid"])
    {conn, again} = post("/password", alice, Pipelines.OwnCookie)
    assert conn.resp_body == "#{before.authenticated_ms}"
    assert again["sid"] != alice["sid"]
    {:ok, session} = Store.peek(again["sid"])
    assert session.authenticated_ms >= before.authenticated_ms
    assert {session.created_ms, session.data} == {before.created_ms, before.data}
  end

  test "revoke ends other devices" do
    {_, phone} = post("/login/bob", %{})
    {_, laptop} = post("/login/bob", %{})
    {_, other} = post("/login/carol", %{})
    assert {:ok, [_, _]} = Store.list("bob")
    assert Store.revoke("bob", except: phone["sid"]) == {:ok, 1}
    assert body(get("/whoami", phone)) == "bob"
    assert body(get("/whoami", laptop)) == "guest"
    assert body(get("/whoami", other)) == "carol"
  end

  test "concurrent requests share a session" do
    {_, browser} = post("/count", %{})
    tasks = for _ <- 1..20, do: Task.async(fn -> body(post("/count", browser)) end)
    counts = tasks |> Task.await_many(50_000) |> Enum.map(&String.to_integer/1)
    # In Plug the last write wins, so counts may repeat. Each request sees a count from before it or
    # during it.
    assert Enum.all?(counts, &(&1 in 2..21))
    {:ok, %{data: %{"n" => n}}} = Store.get(browser["sid"])
    assert n in 2..21
  end

  test "options of a Phoenix socket are accepted" do
    opts = [max_age: 5, same_site: "Lax", signing_salt: "s", secure: true, timeout: 60]
    config = Plug.Session.Store.get(SessionServerStore).init(opts)
    sid = SessionServerStore.put(Plug.Test.conn(:get, "/"), nil, %{"a" => 1}, config)
    assert {^sid, %{"a" => 1}} = SessionServerStore.get(Plug.Test.conn(:get, "/"), sid, config)
  end

  test "wrong option stops the build of a pipeline" do
    for opts <- [
          [timeout: -1],
          [idle_timeout: "600"],
          [idle_timout: 600],
          [principle_key: "user_id"],
          [principal_key: nil]
        ] do
      assert_raise ArgumentError, fn -> Plug.Session.init([store: SessionServerStore, key: "sid"] ++ opts) end
    end
  end

  test "store behaviour is declared" do
    assert Plug.Session.Store in Keyword.get(SessionServerStore.module_info(:attributes), :behaviour, [])
  end
end
