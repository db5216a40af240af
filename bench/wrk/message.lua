-- One rate per request as a JSON object: POST /, over 3 000 subjects and all rates from 0 to 100. For a bridge, which
-- passes on what it gets. The requests are made before the run, so that wrk does nothing but send.

dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "report.lua")

rates_per_request = 1

local requests = {}

function init(args)
  for number = 0, 2999 do
    local body = string.format('{"rate":%d,"subject":"film-%d"}', number * 7 % 101, number)
    requests[number] = wrk.format("POST", "/", {["Content-Type"] = "application/json"}, body)
  end
end

local next_request = 0

function request()
  next_request = (next_request + 1) % 3000
  return requests[next_request]
end
