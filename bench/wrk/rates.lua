-- A thousand rates per request: POST /rates with a JSON array.

function init(args)
  local rates = {}
  for number = 1, 1000 do
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

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"not_200":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
