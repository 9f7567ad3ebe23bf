"""LitServe with batches of 16 in two workers, as its documentation shows it. Runs with the peers' packages alone."""

import os
import sys

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        folder = os.environ["BENCH_MODEL"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()

    def decode_request(self, request: dict) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict]:
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            shares = self.model(**encoded).logits.softmax(dim=-1)
        names = self.model.config.id2label
        return [{"label": names[int(row.argmax())], "score": float(row.max())} for row in shares]

    def encode_response(self, output: dict) -> dict:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, track_requests=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
