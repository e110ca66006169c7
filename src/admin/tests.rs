use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

