-- Requests from a file, in its order, round and round:
--
--   wrk -t1 -c64 -d10s -s bench/wrk/bytes.lua http://127.0.0.1:8080 -- FILE [FIRST]
--
-- Each request stands in the file as its length in bytes, a line feed, and itself as it goes over the wire;
-- write_requests in bench/wrk.py makes such files.

dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "report.lua")

rates_per_request = 1 -- as far as this script knows

local prepared, count, at = {}, 0, 0

function init(args)
  local file, trouble = io.open(args[1] or "", "rb")
  if not file then
    io.stderr:write(args[1] and trouble or "usage: wrk ... -s bench/wrk/bytes.lua URL -- FILE", "\n")
    os.exit(2)
  end
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    count = count + 1
    prepared[count] = file:read(length)
  end
  file:close()
  at = tonumber(args[2] or 0) % count
end

function request()
  at = at % count + 1
  return prepared[at]
end
