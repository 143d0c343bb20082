# What Plug's documentation says of session stores, tested on this one through Plug's own functions.
defmodule SessionServerStore.PlugContractTest do
  use ExUnit.Case, async: true
  @moduletag :plug
  @compile {:no_warn_undefined, [Plug.CSRFProtection, Plug.Conn, Plug.Session, Plug.Test]}

  @unknown String.duplicate("u", 128)

  defp session(conn, opts \\ []) do
    config = Plug.Session.init([store: SessionServerStore, key: "sid"] ++ opts)
    conn |> Plug.Session.call(config) |> Plug.Conn.fetch_session()
  end

  defp with_cookie(sid), do: Plug.Test.conn(:get, "/") |> Plug.Test.put_req_cookie("sid", sid)
  defp stored(data), do: SessionServerStore.put(nil, nil, data, SessionServerStore.init([]))
  defp sent(conn), do: Plug.Conn.send_resp(conn, 200, "")

  test "callbacks put, get and delete" do
    opts = SessionServerStore.init([])
    conn = Plug.Test.conn(:get, "/")
    [one, two] = for data <- [%{foo: :bar}, %{bar: :foo}], do: SessionServerStore.put(conn, nil, data, opts)
    assert {^one, %{foo: :bar}} = SessionServerStore.get(conn, one, opts)
    assert {^two, %{bar: :foo}} = SessionServerStore.get(conn, two, opts)
    assert SessionServerStore.get(conn, @unknown, opts) == {nil, %{}}
    assert SessionServerStore.delete(conn, one, opts) == :ok
    assert SessionServerStore.get(conn, one, opts) == {nil, %{}}
    assert {^two, _} = SessionServerStore.get(conn, two, opts)
    assert byte_size(SessionServerStore.put(conn, nil, %{}, opts)) == 128
  end

  test "cookie reads its session" do
    sid = stored(%{"foo" => "bar"})
    assert sid |> with_cookie() |> session() |> Plug.Conn.get_session("foo") == "bar"
  end

  test "unwritten session sets no cookie" do
    sid = stored(%{"foo" => "bar"})
    assert (sid |> with_cookie() |> session() |> sent()).resp_cookies == %{}
  end

  test "cookie options reach the cookie" do
    opts = [secure: true, path: "some/path", extra: "extra", http_only: false, domain: "example.org"]
    conn = Plug.Test.conn(:get, "/") |> session(opts) |> Plug.Conn.put_session("foo", "bar") |> sent()

    assert %{"sid" => %{value: <<_::binary-size(128)>>, secure: true, path: "some/path", extra: "extra"}} =
             conn.resp_cookies
  end

  test "written session is stored" do
    sid = stored(%{"old" => 1})
    sid |> with_cookie() |> session() |> Plug.Conn.put_session("foo", "bar") |> sent()
    assert {:ok, %{data: %{"old" => 1, "foo" => "bar"}}} = SessionServerStore.Store.get(sid)
  end

  test "drop ends session and cookie" do
    sid = stored(%{"foo" => "bar"})
    conn = sid |> with_cookie() |> session() |> Plug.Conn.configure_session(drop: true) |> sent()
    assert %{"sid" => %{max_age: 0, universal_time: {{1970, 1, 1}, {0, 0, 0}}}} = conn.resp_cookies
    assert SessionServerStore.Store.get(sid) == {:error, :not_found}
  end

  test "drop without a session sets no cookie" do
    for conn <- [Plug.Test.conn(:get, "/"), with_cookie(@unknown)] do
      assert (conn |> session() |> Plug.Conn.configure_session(drop: true) |> sent()).resp_cookies == %{}
    end
  end

  test "renew replaces the id, keeps the data" do
    sid = stored(%{"foo" => "bar"})
    conn = sid |> with_cookie() |> session() |> Plug.Conn.configure_session(renew: true) |> sent()
    assert %{"sid" => %{value: new}} = conn.resp_cookies
    assert new != sid
    assert {:ok, %{data: %{"foo" => "bar"}}} = SessionServerStore.Store.get(new)
    assert SessionServerStore.Store.get(sid) == {:error, :not_found}
  end

  test "ignored change is not stored" do
    sid = stored(%{"foo" => "bar"})

    conn =
      sid
      |> with_cookie()
      |> session()
      |> Plug.Conn.put_session("foo", "changed")
      |> Plug.Conn.configure_session(ignore: true)
      |> sent()

    assert conn.resp_cookies == %{}
    assert {:ok, %{data: %{"foo" => "bar"}}} = SessionServerStore.Store.get(sid)
  end

  test "test session is merged over the stored one" do
    sid = stored(%{"foo" => "bar", "other" => "kept"})
    conn = sid |> with_cookie() |> Plug.Test.init_test_session(foo: "test") |> session()
    assert Plug.Conn.get_session(conn) == %{"foo" => "test", "other" => "kept"}
  end

  test "CSRF token is kept in the session" do
    conn = Plug.Test.conn(:get, "/") |> session()
    conn = Plug.CSRFProtection.call(conn, Plug.CSRFProtection.init([]))
    token = Plug.CSRFProtection.get_csrf_token()
    %{"sid" => %{value: sid}} = sent(conn).resp_cookies

    post = fn token ->
      conn = Plug.Test.conn(:post, "/", %{"_csrf_token" => token}) |> Plug.Test.put_req_cookie("sid", sid)
      Plug.CSRFProtection.call(session(conn), Plug.CSRFProtection.init([]))
    end

    refute post.(token).halted
    assert_raise Plug.CSRFProtection.InvalidCSRFTokenError, fn -> post.("wrong") end
  end
end
