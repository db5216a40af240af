# One image for both services: `fanrate api` and `fanrate process`.
ARG PYTHON=3.13.7-slim-trixie

FROM python:${PYTHON} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What builds the wheel stays in this stage; what it runs on goes into an environment of its own, without pip.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
    && python -m venv --without-pip /opt/fanrate \
    && /opt/build/bin/pip --python /opt/fanrate/bin/python install --require-hashes --only-binary :all: \
        -r requirements/runtime.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/fanrate/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:${PYTHON}
COPY --from=build /opt/fanrate /opt/fanrate
# Compiled files came with the environment: none are written where nothing may be.
ENV PATH=/opt/fanrate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    HEALTH_PORT=8080
USER 10001:10001
EXPOSE 8080
# Healthy, not ready: whoever restarts what is unhealthy must not do so because a broker is away.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s CMD ["fanrate", "healthy"]
CMD ["fanrate", "api"]
