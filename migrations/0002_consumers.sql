-- Who follows the changelog, and how far each has it on disk: entries below the smallest `seq` of the
-- consumers that are alive may be pruned.
-- * `session` is a nonce that only the process knows which acknowledged last: a copied replica file
--   cannot pass for its original for long.
-- * `seen` is the time of the last acknowledgement in milliseconds, by the source's clock.
-- * `wants` says which tables it replicates, so that `init` captures what anybody wants.
-- There is no key and no constraint: the table has a handful of rows, and nothing of it may fail.
CREATE TABLE _redtail_consumers(id, session, seq, seen, wants);
