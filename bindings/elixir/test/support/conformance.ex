# Reads the scenarios of the contract (tests/conformance/*.txt) and runs them on
# SessionServerStore.Store. Must fail on a step that it does not know: a skipped step would be an
# untested promise.
defmodule Conformance do
  @moduledoc false

  alias SessionServerStore.{Error, Store}

  # What scenarios may need. Elixir can close a store. It has no numeric handles and no buffers of
  # the caller, the VM cannot fork, and one option both sets and clears a principal. The last three
  # depend on the engine.
  @abilities ~w(close buffers handles fork options flags limits memory processes)

  defstruct [:name, :file, needs: [], steps: []]

  ## Reading

  @doc "All scenarios of all files, in order."
  def load(dir) do
    dir |> Path.join("*.txt") |> Path.wildcard() |> Enum.sort() |> Enum.flat_map(&load_file/1)
  end

  def missing_abilities(scenario) do
    of_engine =
      case TemporaryStore.engine() do
        "memory" -> ~w(limits memory)
        "lmdb" <> _ -> ~w(limits processes)
        "redis" <> _ -> []
      end

    scenario.needs -- ["close" | of_engine]
  end

  defp load_file(path) do
    path
    |> File.stream!()
    |> Stream.with_index(1)
    |> Stream.map(fn {text, number} -> {String.trim_trailing(text, "\n"), number} end)
    |> Stream.reject(fn {text, _} -> String.trim(text) == "" or String.starts_with?(text, "#") end)
    |> Enum.reduce([], fn
      {"scenario " <> name, _}, done ->
        [%__MODULE__{name: name, file: path} | done]

      {"needs " <> abilities, number}, [%{steps: []} = scenario | done] ->
        needs = String.split(abilities, " ")
        unknown = needs -- @abilities
        if unknown != [], do: raise("#{path}:#{number}: unknown ability: #{Enum.join(unknown, " ")}")
        [%{scenario | needs: needs} | done]

      {text, number}, [scenario | done] ->
        [%{scenario | steps: [{text, number} | scenario.steps]} | done]

      {text, number}, [] ->
        raise "#{path}:#{number}: a step before the first scenario: #{text}"
    end)
    |> Enum.map(&%{&1 | steps: Enum.reverse(&1.steps)})
    |> Enum.reverse()
  end

  ## Running

  @doc "Runs one scenario. Raises if a result is not the expected one."
  def run(scenario) do
    temporary = TemporaryStore.new()

    state = %{
      temporary: temporary,
      stores: %{},
      values: %{},
      advanced: 0,
      origin: nil
    }

    state =
      Enum.reduce(scenario.steps, state, fn {text, number}, state ->
        try do
          run_step(text, state)
        rescue
          error ->
            message = "#{Path.relative_to_cwd(scenario.file)}:#{number}: #{text}\n  #{Exception.message(error)}"
            reraise ExUnit.AssertionError, [message: message], __STACKTRACE__
        end
      end)

    for {_, store} <- state.stores, do: Store.close(store)
    TemporaryStore.remove(temporary)
    :ok
  end

  defp run_step(text, state) do
    {step, expected} =
      case String.split(text, " -> ", parts: 2) do
        [step, expected] -> {step, String.split(expected, " ")}
        [step] -> {step, ["ok"]}
      end

    tokens = tokens(step)
    {result, state} = step(tokens, state)
    check!(result, expected, state)
    remember(tokens, result, state)
  end

  # `url "..."` is the only step with quoted text.
  defp tokens("url \"" <> rest), do: ["url", String.trim_trailing(rest, "\"")]
  defp tokens(step), do: String.split(step, " ")

  ## Steps return {:ok, facts} or {:error, status, message}, and the state

  defp step(["open", name | options], state) do
    manual = if Enum.any?(options, &String.starts_with?(&1, "clock=")), do: [], else: ["clock=manual"]

    case Store.open(TemporaryStore.url(state.temporary, options ++ manual), raw: true) do
      {:ok, store} -> {{:ok, %{}}, put_in(state.stores[name], store)}
      failure -> {result(failure), state}
    end
  end

  defp step(["url", url], state) do
    {result(with {:ok, store} <- Store.open(url), do: Store.close(store)), state}
  end

  defp step(["advance", name, span], state) do
    result = result(Store.advance_clock(store(state, name), span(span)))
    {result, if(match?({:ok, _}, result), do: %{state | advanced: state.advanced + ms(span)}, else: state)}
  end

  defp step(["status", ok, "0"], state) when ok in ["ok", "OK"], do: {{:ok, %{}}, state}

  defp step(["status", name, code], state) do
    {reason, number, text} =
      List.keyfind(Error.reasons(), String.to_atom(String.downcase(name)), 0) || raise "there is no status #{name}"

    if number != String.to_integer(code), do: raise("#{reason} has the number #{number}")
    if text == "", do: raise("#{reason} has no text")
    {{:ok, %{}}, state}
  end

  defp step([same, a, b], state) when same in ["same", "different"] do
    if value(state, a) == value(state, b) != (same == "same"), do: raise("the values are not #{same}")
    {{:ok, %{}}, state}
  end

  # A negative grace time is the only argument of a scenario that Elixir refuses with an exception.
  defp step([verb, name | arguments], state) do
    {call(verb, store(state, name), arguments, state), state}
  rescue
    error in ArgumentError ->
      if error.message =~ ":grace", do: {{:error, :invalid, error.message}, state}, else: reraise(error, __STACKTRACE__)
  end

  defp call("close", store, [], _), do: result(Store.close(store))
  defp call("create", store, [_, data | o], _), do: result(Store.create(store, data(data), options(o)))
  defp call("get", store, [sid], s), do: result(Store.get(store, sid(s, sid)))
  defp call("peek", store, [sid], s), do: result(Store.peek(store, sid(s, sid)))
  defp call("touch", store, [sid], s), do: result(Store.touch(store, sid(s, sid)))
  defp call("put", store, [sid, data | o], s), do: result(Store.put(store, sid(s, sid), data(data), options(o)))

  defp call("put_if", store, [sid, version, data | o], s),
    do: result(Store.put_if(store, sid(s, sid), String.to_integer(version), data(data), options(o)))

  defp call("renew", store, [sid, _ | o], s), do: result(Store.renew(store, sid(s, sid), options(o)))
  defp call("delete", store, [sid], s), do: result(Store.delete(store, sid(s, sid)))
  defp call("ref", store, [sid, _], s), do: result(Store.ref(store, sid(s, sid)))
  defp call("touch_ref", store, [ref], s), do: result(Store.touch_ref(store, value(s, ref)))
  defp call("peek_ref", store, [ref], s), do: result(Store.touch_ref(store, value(s, ref), peek: true))
  defp call("delete_ref", store, [ref], s), do: result(Store.delete_ref(store, value(s, ref)))

  defp call("delete_ref", store, [ref, "principal=" <> principal], s),
    do: result(Store.delete_ref(store, value(s, ref), principal: data(principal)))

  defp call("list", store, [principal], _), do: result(Store.list(store, data(principal)))
  defp call("stats", store, [], _), do: result(Store.stats(store))

  defp call("sweep", store, [max], _), do: result(Store.sweep(store, String.to_integer(max)))
  defp call("revoke_all", store, [], _), do: result(Store.revoke_all(store))
  defp call("revoke", store, [principal], _), do: result(Store.revoke(store, data(principal)))

  defp call("revoke", store, [principal, "except=" <> sid], s),
    do: result(Store.revoke(store, data(principal), except: sid(s, sid)))

  defp call(verb, _, arguments, _), do: raise("unknown step #{verb} with #{length(arguments)} arguments")

  defp result(:ok), do: {:ok, %{}}
  defp result({:ok, sid, session}), do: {:ok, Map.put(Map.from_struct(session), :value, sid)}
  defp result({:ok, %_{} = session}), do: {:ok, Map.from_struct(session)}
  defp result({:ok, stats}) when is_map(stats), do: {:ok, stats}
  defp result({:ok, count}) when is_integer(count), do: {:ok, %{count: count}}
  defp result({:ok, ref}) when is_binary(ref), do: {:ok, %{value: ref}}
  defp result({:ok, entries}) when is_list(entries), do: {:ok, %{count: length(entries), entries: entries}}
  defp result({:error, :not_found}), do: {:error, :not_found, "no such session"}
  defp result({:error, %Error{} = error}), do: {:error, error.reason, error.message}

  # An id or a reference is kept under the name that its step gives it.
  defp remember([verb | arguments], {:ok, %{value: value} = known}, state) when verb in ["create", "renew", "ref"] do
    [_, first | rest] = arguments
    name = if verb == "create", do: first, else: hd(rest)
    state = put_in(state.values[name], value)
    if verb == "create" and state.origin == nil, do: origin(state, known), else: state
  end

  defp remember(_, _, state), do: state

  defp origin(state, known), do: %{state | origin: known.created_ms - state.advanced}

  ## Checks

  defp check!({:error, status, message}, [expected | checks], _state) do
    if Atom.to_string(status) != expected, do: raise("expected #{expected}, got #{status}: #{message}")

    for check <- checks do
      "message~" <> word = check
      if not String.contains?(message, word), do: raise("the message has no #{word}: #{message}")
    end
  end

  defp check!({:ok, known}, ["ok" | checks], state) do
    # The first create sets the origin, against which its own times are checked.
    state = if state.origin == nil and is_map_key(known, :created_ms), do: origin(state, known), else: state
    for check <- checks, do: check_fact!(String.split(check, "=", parts: 2), known, state)
  end

  defp check!({:ok, _}, [expected | _], _state), do: raise("expected #{expected}, got ok")

  defp check_fact!([name, text], known, state) do
    {expected, got} =
      case name do
        "data" ->
          {data(text), known.data}

        "len" ->
          {String.to_integer(text), byte_size(known.data)}

        "created" when not is_map_key(known, :created) ->
          {ms(text), known.created_ms - state.origin}

        "seen" ->
          {ms(text), known.last_seen_ms - state.origin}

        "expires" when text == "infinity" ->
          {:infinity, known.expires_ms}

        "authenticated" ->
          {time(text), since_origin(known.authenticated_ms, state)}

        "timeout" ->
          {duration(text), known.timeout_ms}

        "idle_timeout" ->
          {duration(text), known.idle_timeout_ms}

        "labels" ->
          {Enum.map(list(text), &label/1), Enum.map(known.entries, & &1.label)}

        "authentications" ->
          {Enum.map(list(text), &time/1), Enum.map(known.entries, &since_origin(&1.authenticated_ms, state))}

        "expires" ->
          {ms(text), is_integer(known.expires_ms) && known.expires_ms - state.origin}

        "refs" ->
          {Enum.map(list(text), &value(state, &1)), Enum.map(known.entries, & &1.ref)}

        "versions" ->
          {Enum.map(list(text), &String.to_integer/1), Enum.map(known.entries, & &1.version)}

        "lens" ->
          {Enum.map(list(text), &String.to_integer/1), Enum.map(known.entries, & &1.size)}

        # `version`, `count` and the counters of `stats`.
        _ ->
          {String.to_integer(text), Map.fetch!(known, String.to_existing_atom(name))}
      end

    if expected != got, do: raise("expected #{name} #{inspect(expected)}, got #{inspect(got)}")
  end

  defp since_origin(nil, _state), do: nil
  defp since_origin(ms, state), do: ms - state.origin

  ## Values

  defp store(state, name), do: Map.fetch!(state.stores, name)

  defp value(_state, "unknown_ref"), do: :binary.copy(<<0xAA>>, 32)
  defp value(state, "$" <> _ = name), do: Map.fetch!(state.values, name)

  defp sid(_state, "unknown"), do: String.duplicate("A", 128)
  defp sid(_state, "malformed:" <> text), do: text
  defp sid(state, name), do: value(state, name)

  defp data("empty"), do: ""
  defp data("hex:" <> digits), do: Base.decode16!(digits, case: :mixed)
  defp data("fill:" <> n), do: for(i <- 0..(String.to_integer(n) - 1)//1, into: <<>>, do: <<rem(i, 251)>>)

  defp data(word) do
    if not (word =~ ~r/\A[A-Za-z0-9_.-]+\z/), do: raise("not data: #{word}")
    word
  end

  defp options(tokens), do: Enum.map(tokens, &option/1)

  defp option("timeout=" <> text), do: {:timeout, timeout(text)}
  defp option("idle_timeout=" <> text), do: {:idle_timeout, timeout(text)}
  defp option("principal=" <> text), do: {:principal, data(text)}
  defp option("clear_principal"), do: {:principal, nil}
  defp option("label=" <> text), do: {:label, data(text)}
  defp option("reauthenticated"), do: {:reauthenticated, true}
  defp option("grace=" <> text), do: {:grace, span(text)}
  defp option("data=" <> text), do: {:data, data(text)}
  defp option(other), do: raise("unknown option #{other}")

  defp timeout("dead"), do: 0
  defp timeout("inherit"), do: :inherit
  defp timeout(text), do: span(text)

  defp span("infinity"), do: :infinity
  defp span(text), do: {ms(text), :millisecond}

  defp time("never"), do: nil
  defp time(text), do: ms(text)

  defp duration("infinity"), do: :infinity
  defp duration(text), do: ms(text)

  defp label("none"), do: nil
  defp label(text), do: data(text)

  defp ms(text) do
    {number, unit} = Integer.parse(text)
    number * Map.fetch!(%{"ms" => 1, "s" => 1_000, "m" => 60_000, "h" => 3_600_000}, unit)
  end

  defp list(text), do: String.split(text, ",", trim: true)
end
