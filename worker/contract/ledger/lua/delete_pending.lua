-- Delete outcomes that are in S3 now. Their ids are names within the server that gave them: another one, which became the
-- primary meanwhile, may have given the same id to another outcome.
-- ARGV: `run_id` of the server that the outcomes were read from, then ids
-- -> number of outcomes deleted
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
if run_id() ~= ARGV[1] then return 0 end
return redis.call('XDEL', LOG, unpack(ARGV, 2))
