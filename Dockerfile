# The worker, with the sample plugin in /plugins.

FROM rust:1.95-slim-bookworm AS build
# librdkafka is built from source: a C compiler, make, OpenSSL.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add wasm32-wasip2
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --package pawl \
    && cargo xtask plugins --only delete-batch \
    && mkdir -p /out/plugins \
    && cp target/release/pawl /out/ \
    && cp target/plugins/delete-batch.wasm /out/plugins/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/pawl --create-home pawl
COPY --from=build /out/pawl /usr/local/bin/pawl
COPY --from=build --chown=pawl /out/plugins /plugins
USER pawl
# pawl.db and the compiled plugins, unless pawl.toml says otherwise.
WORKDIR /var/lib/pawl
VOLUME ["/plugins", "/var/lib/pawl"]
ENTRYPOINT ["pawl"]
CMD ["run", "--config", "/etc/pawl/pawl.toml"]
