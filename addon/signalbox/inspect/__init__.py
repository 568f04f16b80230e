"""What mitmproxy shows of a flow: views of requests and answers, comments, retention, explain and replay."""
