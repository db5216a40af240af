-- One rate per request: POST /rate?rate=R&subject=S, over 3 000 subjects and all rates from 0 to 100.
--
--   wrk -t1 -c64 -d10s -s bench/wrk/rate.lua http://127.0.0.1:8080
--
-- With several threads each goes through the same requests from another place on, so that no two send the same ones at
-- one time. The requests are made before the run: wrk does nothing but send.

dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "report.lua")

rates_per_request = 1

local REQUESTS = 3000
local STRIDE = 997 -- shares no factor with REQUESTS: the first 3 000 threads all begin elsewhere
local threads = 0

function setup(thread)
  thread:set("place", threads * STRIDE % REQUESTS)
  threads = threads + 1
end

local prepared = {}

function init(args)
  for number = 0, REQUESTS - 1 do
    prepared[number] = wrk.format("POST", string.format("/rate?rate=%d&subject=film-%d", number * 7 % 101, number))
  end
end

function request()
  place = (place + 1) % REQUESTS
  return prepared[place]
end
