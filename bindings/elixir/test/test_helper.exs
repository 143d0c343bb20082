# Starts ExUnit. Tests with the tag :plug need the real Plug and are skipped, with a line that says so, where it is not.
{:ok, _} = TestReport.start()
ExUnit.start(exclude: if(Code.ensure_loaded?(Plug.Session), do: [], else: [:plug]))
ExUnit.after_suite(&TestReport.print/1)
