# The router as a container: what requirements-runtime.lock pins, each file checked by its hash, and nothing else.
#
#     docker build --tag signalbox .
#     docker compose up             # compose.yaml says what it needs
#
# It runs as a user without rights, and needs no writable folder but /var/lib/signalbox (and /tmp).
FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/signalbox
COPY requirements-runtime.lock ./
RUN pip install --require-hashes --requirement requirements-runtime.lock \
    && useradd --system --uid 8082 --home-dir /var/lib/signalbox signalbox \
    && install --directory --owner=signalbox --mode=0700 /var/lib/signalbox /etc/signalbox
COPY addon ./addon
ENV PYTHONPATH=/opt/signalbox/addon
RUN python -m compileall -q addon
USER 8082
VOLUME ["/var/lib/signalbox"]
EXPOSE 8082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8082/health', timeout=2)"]
ENTRYPOINT ["python", "-m", "signalbox.cli", "run", "--fail", "closed", "--listen", "0.0.0.0:8082", \
    "--rules", "/etc/signalbox/rules.yaml", "--state", "/var/lib/signalbox", \
    "--", "--set", "confdir=/var/lib/signalbox/mitmproxy"]
