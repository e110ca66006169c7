//! Strokes and results as Parquet.
