//! Every configuration key: file, environment, flag; and where its value came from.
