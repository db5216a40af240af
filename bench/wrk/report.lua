-- What a run came to, for the scripts beside this one: a line to read, and one for bench/wrk.py.
-- wrk calls `done` once, after all its threads. It counts every status of 400 or more as one error.

function done(summary, latency, requests)
  local errors = summary.errors
  local confirmed = summary.requests - errors.status
  io.write(string.format(
    "\n%d requests answered 200, %.1f rates/s; %d with another status; sockets: %d connect, %d read, %d write, %d timeout\n",
    confirmed, confirmed * rates_per_request / (summary.duration / 1e6), errors.status,
    errors.connect, errors.read, errors.write, errors.timeout))
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"not_200":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
