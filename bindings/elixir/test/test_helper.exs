# Starts ExUnit. Tests with the tag :plug need the real Plug. Without it they are skipped, and a
# line reports that.
{:ok, _} = TestReport.start()
ExUnit.start(exclude: if(Code.ensure_loaded?(Plug.Session), do: [], else: [:plug]))
ExUnit.after_suite(&TestReport.print/1)
