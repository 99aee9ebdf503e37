-- The capture's own tables. Why they look like this:
-- * The changelog has no constraint that could fail and no index but its key: a failing or slow entry
--   would fail or slow the application's statement. The columns have no affinity, so that key values
--   are kept as they are. Key columns are added (k2, k3, ...) when a wider key is captured.
-- * `seq` is never reused: pruning leaves the newest entry, and the seed entry means that there always
--   is one. AUTOINCREMENT would say the same at the price of a second table touched by every write.
-- * A table has a new id after every install or repair: entries of old ids are ignored.
CREATE TABLE _redtail_changelog(seq INTEGER PRIMARY KEY, tbl, op, at, k0, k1);
CREATE TABLE _redtail_tables(id INTEGER PRIMARY KEY, name);
CREATE TABLE _redtail_meta(name, value);
