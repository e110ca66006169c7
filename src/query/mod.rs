//! SQL over live and stored data: DataFusion, read-only, on a runtime of its own.
