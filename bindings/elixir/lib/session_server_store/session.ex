# What the store tells about one session. Holds no id, and is inspected without its data, so that it
# can be logged.
defmodule SessionServerStore.Session do
  @moduledoc """
  A session as it was when the store answered.

    * `:data` - the stored data (`nil` after `SessionServerStore.Store.touch/2`, which does not read
      it)
    * `:version` - 1 at creation, and one more with every write
    * `:created_ms`, `:last_seen_ms` - Unix time in milliseconds
    * `:expires_ms` - when the session expires unless it is used before; `:infinity` if never
    * `:authenticated_ms` - when the user last proved their identity: at the creation of a session
      with a principal, at a login or at a reauthentication, see `SessionServerStore.Store.renew/3`.
      `nil` if never
    * `:timeout_ms`, `:idle_timeout_ms` - the timeouts in force in milliseconds, the session's own or
      those of its store; `:infinity` for none

  `DateTime.from_unix!(session.expires_ms, :millisecond)` converts a time to a `DateTime`.
  """

  alias SessionServerStore.Native

  @derive {Inspect, except: [:data]}
  @enforce_keys [:data, :version, :created_ms, :last_seen_ms, :expires_ms] ++
                  [:authenticated_ms, :timeout_ms, :idle_timeout_ms]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          data: term,
          version: pos_integer,
          created_ms: integer,
          last_seen_ms: integer,
          expires_ms: integer | :infinity,
          authenticated_ms: integer | nil,
          timeout_ms: non_neg_integer | :infinity,
          idle_timeout_ms: non_neg_integer | :infinity
        }

  @doc false
  @spec new(data :: term, Native.meta()) :: t
  def new(data, {version, created_ms, last_seen_ms, expires_ms, authenticated_ms, timeout_ms, idle_timeout_ms}) do
    %__MODULE__{
      data: data,
      version: version,
      created_ms: created_ms,
      last_seen_ms: last_seen_ms,
      expires_ms: expires_ms,
      authenticated_ms: authenticated_ms,
      timeout_ms: timeout_ms,
      idle_timeout_ms: idle_timeout_ms
    }
  end
end
