# Calls the library for one session: on the scheduler of the caller, or on a dirty one where the engine of the store may
# wait there for other processes or for a disk, or the payload is large. The library knows which.
defmodule SessionServerStore.Call do
  @moduledoc false

  alias SessionServerStore.Native

  operations = [
    create: 3,
    get: 3,
    put: 4,
    put_if: 5,
    touch: 2,
    renew: 4,
    delete: 2,
    reference: 2,
    delete_ref: 2,
    stats: 1
  ]

  for {name, arity} <- operations do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    def unquote(name)(unquote_splicing(arguments)) do
      with :wait <- Native.unquote(name)(unquote_splicing(arguments)),
           do: Native.unquote(:"#{name}_waiting")(unquote_splicing(arguments))
    end
  end
end
