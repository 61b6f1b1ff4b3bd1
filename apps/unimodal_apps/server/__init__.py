"""A server that speaks OpenAI's protocol: chat with pictures in and out, drawing, editing."""
