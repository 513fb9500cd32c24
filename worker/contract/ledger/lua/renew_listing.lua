-- The producer of a job reports that it is still listing the job's images.
if redis.call('HGET', JOB, 'status') == 'listing' then redis.call('HSET', JOB, 'beat_at', now()) end
return 1
