//! Recording files and recording sets: CSV and Parquet, as `analyze`, `simulate`, `import`, `train` read them.
