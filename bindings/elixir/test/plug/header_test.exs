# SessionHeaderPlug over the real Plug, as a script of another origin sees it.
defmodule SessionServerStore.HeaderPlugTest do
  use ExUnit.Case, async: true
  @moduletag :plug
  @compile {:no_warn_undefined, [Plug.Conn, Plug.Test, SessionHeaderPlug]}

  alias SessionServerStore.Store

  defp request(method, path, sid, app \\ Pipelines.Header) do
    conn = Plug.Test.conn(method, path)
    conn = if sid, do: Plug.Conn.put_req_header(conn, "session-id", sid), else: conn
    app.call(conn, app.init([]))
  end

  defp post(path, sid), do: request(:post, path, sid)
  defp get(path, sid), do: request(:get, path, sid)
  defp header(conn, name), do: Plug.Conn.get_resp_header(conn, name)

  defp login(user) do
    [sid] = header(post("/login/#{user}", nil), "session-id")
    sid
  end

  test "unwritten session allows the header" do
    conn = get("/whoami", nil)
    assert header(conn, "session-id") == []
    assert header(conn, "access-control-expose-headers") == []
    assert header(conn, "access-control-allow-headers") == ["session-id"]
    assert header(conn, "set-cookie") == []
  end

  test "written session exposes the header" do
    conn = post("/count", nil)
    assert [<<_::binary-size(128)>> = sid] = header(conn, "session-id")
    assert header(conn, "access-control-expose-headers") == ["session-id"]

    again = post("/count", sid)
    assert again.resp_body == "2"
    assert header(again, "session-id") == [sid]
  end

  test "clients have separate sessions" do
    [one] = header(post("/count", nil), "session-id")
    [two] = header(post("/count", nil), "session-id")
    assert one != two
    assert post("/count", one).resp_body == "2"
    assert post("/count", two).resp_body == "2"
  end

  test "login replaces the id" do
    [visitor] = header(post("/count", nil), "session-id")
    [alice] = header(post("/login/header-alice", visitor), "session-id")
    assert alice != visitor
    assert get("/whoami", alice).resp_body == "header-alice"
    assert {:error, :not_found} = Store.get(visitor)
    assert post("/count", alice).resp_body == "2"
  end

  test "drop ends the session" do
    sid = login("header-bob")
    conn = post("/logout", sid)
    assert conn.status == 200
    assert header(conn, "session-id") == []
    assert get("/whoami", sid).resp_body == "guest"
    assert {:error, :not_found} = Store.get(sid)
  end

  test "drop without a session succeeds" do
    assert post("/logout", nil).status == 200
    assert post("/logout", "unknown").status == 200
  end

  test "unknown id is replaced on write" do
    conn = post("/count", "made-up")
    assert [<<_::binary-size(128)>>] = header(conn, "session-id")
    assert conn.resp_body == "1"
  end

  test "ignored change is not stored or sent" do
    [sid] = header(post("/count", nil), "session-id")
    conn = post("/ignore", sid)
    assert header(conn, "session-id") == []
    assert post("/count", sid).resp_body == "2"
  end

  test "session ended during a request stays ended" do
    [sid] = header(post("/count", nil), "session-id")
    assert post("/overtaken", sid).status == 200
    assert {:error, :not_found} = Store.get(sid)
  end

  test "late write leaves the id of a login alone" do
    [visitor] = header(post("/count", nil), "session-id")
    conn = post("/login-meanwhile/header-dave", visitor)
    assert conn.status == 200
    assert header(conn, "session-id") == []
    assert header(conn, "access-control-expose-headers") == []
    [sid] = header(conn, "x-new-sid")
    assert get("/whoami", sid).resp_body == "header-dave"
  end

  test "revoke ends other devices" do
    one = login("header-carol")
    two = login("header-carol")
    assert Store.revoke("header-carol", except: one) == {:ok, 1}
    assert get("/whoami", one).resp_body == "header-carol"
    assert get("/whoami", two).resp_body == "guest"
  end

  test "other names in CORS headers stay" do
    config = SessionHeaderPlug.init(store: SessionServerStore, key: "session-id")

    conn =
      Plug.Test.conn(:get, "/")
      |> Plug.Conn.put_resp_header("access-control-allow-headers", "content-type, x-other")
      |> Plug.Conn.put_resp_header("access-control-expose-headers", "Session-ID")
      |> SessionHeaderPlug.call(config)
      |> Plug.Conn.fetch_session()
      |> Plug.Conn.put_session("a", 1)
      |> Plug.Conn.send_resp(200, "")

    assert header(conn, "access-control-allow-headers") == ["content-type, x-other, session-id"]
    assert header(conn, "access-control-expose-headers") == ["Session-ID"]
  end

  test "other stores work by module and name" do
    :ets.new(:header_plug_test, [:named_table, :public])

    for store <- [Plug.Session.ETS, :ets] do
      config = SessionHeaderPlug.init(store: store, key: "x-sid", table: :header_plug_test)
      call = &(&1 |> SessionHeaderPlug.call(config) |> Plug.Conn.fetch_session())

      written = Plug.Test.conn(:get, "/") |> call.() |> Plug.Conn.put_session(:a, 1) |> Plug.Conn.send_resp(200, "")
      [sid] = header(written, "x-sid")
      read = Plug.Test.conn(:get, "/") |> Plug.Conn.put_req_header("x-sid", sid) |> call.()
      assert Plug.Conn.get_session(read, :a) == 1
    end
  end

  test "wrong options raise" do
    assert_raise KeyError, fn -> SessionHeaderPlug.init(key: "x-sid") end
    assert_raise KeyError, fn -> SessionHeaderPlug.init(store: SessionServerStore) end

    for opts <- [[timeout: -5], [principle_key: "user_id"], [ttl: 5]] do
      assert_raise ArgumentError, fn -> SessionHeaderPlug.init([store: SessionServerStore, key: "x-sid"] ++ opts) end
    end
  end

  test "test session takes precedence" do
    config = SessionHeaderPlug.init(store: SessionServerStore, key: "session-id")
    [sid] = header(post("/count", nil), "session-id")

    conn =
      Plug.Test.conn(:get, "/")
      |> Plug.Conn.put_req_header("session-id", sid)
      |> Plug.Test.init_test_session(n: 41)
      |> SessionHeaderPlug.call(config)
      |> Plug.Conn.fetch_session()

    assert Plug.Conn.get_session(conn, "n") == 41
  end
end
