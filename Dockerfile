# syntax=docker/dockerfile:1
# The hub with its page, in a small image. It runs as an unprivileged user, on a read-only root: only
# /var/lib/pulsehub is written to. The images named here are those the tests' machines have as packages.

# The page.
FROM node:20.20.2-bookworm-slim AS page
WORKDIR /pulsehub/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY web .
RUN npm run build

# What the dependencies are made from: it changes with the manifests only, so that they are built once.
FROM rust:1.95.0-bookworm AS rust
RUN cargo install --locked cargo-chef@0.1.78
WORKDIR /pulsehub

FROM rust AS recipe
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# The program.
FROM rust AS program
COPY --from=recipe /pulsehub/recipe.json recipe.json
RUN cargo chef cook --release --locked --package pulsehub --recipe-path recipe.json
COPY . .
COPY --from=page /pulsehub/web/dist web/dist
RUN cargo build --release --locked --package pulsehub --bin pulsehub

# The image.
FROM debian:12.15-slim
LABEL org.opencontainers.image.title="pulsehub" \
      org.opencontainers.image.licenses="Apache-2.0"
# Certificate authorities, for addresses with https:// and rediss://.
COPY --from=program /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=program /pulsehub/target/release/pulsehub /usr/local/bin/pulsehub
# A volume that is new takes the owner and the mode of this folder.
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/pulsehub
USER 65532:65532
ENV PULSEHUB_LISTEN=0.0.0.0:8080 \
    PULSEHUB_DATA=/var/lib/pulsehub
VOLUME /var/lib/pulsehub
EXPOSE 8080
# The hub drains on it, for `http.drain` at most: give it longer than that before it is killed.
STOPSIGNAL SIGTERM
# Another port wants PULSEHUB_URL as well.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["pulsehub", "healthcheck"]
ENTRYPOINT ["pulsehub"]
CMD ["serve"]
