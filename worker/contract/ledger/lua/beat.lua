-- Who lists a job is alive.
if redis.call('HGET', JOB, 'status') == 'listing' then redis.call('HSET', JOB, 'beat_at', now()) end
return 1
