# Calls the native functions for one session on the right scheduler: that of the caller, or a dirty
# one if the call may block or takes longer than a scheduler may be kept. The native library decides
# which.
defmodule SessionServerStore.Dispatch do
  @moduledoc false

  alias SessionServerStore.Native

  functions = [
    create: 3,
    get: 3,
    put: 4,
    put_if: 5,
    touch: 2,
    delete: 2,
    reference: 2,
    touch_ref: 3,
    delete_ref: 3,
    stats: 1
  ]

  for {name, arity} <- functions do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    def unquote(name)(unquote_splicing(arguments)) do
      with :would_block <- Native.unquote(name)(unquote_splicing(arguments)),
           do: Native.unquote(:"#{name}_dirty")(unquote_splicing(arguments))
    end
  end
end
