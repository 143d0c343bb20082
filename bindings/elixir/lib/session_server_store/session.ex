# What the store tells about one session. Holds no id, and is shown without its data, so that it may be logged.
defmodule SessionServerStore.Session do
  @moduledoc """
  A session as it was when the store answered.

    * `:data` - what is stored (`nil` after `SessionServerStore.Store.touch/2`, which does not read it)
    * `:version` - 1 when created, and one more with every new data
    * `:created_ms`, `:last_seen_ms` - Unix time in milliseconds
    * `:expires_ms` - when it dies unless it is used before; `:infinity` if never

  Times become a `DateTime` with `DateTime.from_unix!(session.expires_ms, :millisecond)`.
  """

  @derive {Inspect, except: [:data]}
  @enforce_keys [:data, :version, :created_ms, :last_seen_ms, :expires_ms]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          data: term,
          version: pos_integer,
          created_ms: integer,
          last_seen_ms: integer,
          expires_ms: integer | :infinity
        }
end

defmodule SessionServerStore.SessionInfo do
  @moduledoc """
  One session in a principal's list, see `SessionServerStore.Store.list/2`.

    * `:ref` - 32 bytes that name the session to `SessionServerStore.Store.delete_ref/2`; never an id
    * `:size` - length of the stored payload in bytes
    * the others as in `SessionServerStore.Session`
  """

  @enforce_keys [:ref, :size, :version, :created_ms, :last_seen_ms, :expires_ms]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          ref: binary,
          size: non_neg_integer,
          version: pos_integer,
          created_ms: integer,
          last_seen_ms: integer,
          expires_ms: integer | :infinity
        }
end
