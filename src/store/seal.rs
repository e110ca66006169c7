//! A session's frames become one sorted Parquet file: temporary name, verified, renamed.
