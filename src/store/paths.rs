//! Typed paths of everything below the data folder.
