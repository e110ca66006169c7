//! A readable report of one session: text, HTML and SVG.
