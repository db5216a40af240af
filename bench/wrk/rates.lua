-- A thousand rates per request: POST /rates with a JSON array, the same in each request and each thread.
--
--   wrk -t1 -c8 -d10s -s bench/wrk/rates.lua http://127.0.0.1:8080

dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "report.lua")

rates_per_request = 1000

local prepared

function init(args)
  local rates = {}
  for number = 1, rates_per_request do
    rates[number] = string.format('{"rate":%d,"subject":"film-%d"}', number * 7 % 101, number * 3)
  end
  wrk.method = "POST"
  wrk.path = "/rates"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = "[" .. table.concat(rates, ",") .. "]"
  prepared = wrk.format()
end

function request()
  return prepared
end
