"""FastAPI around a transformers pipeline, as their documentations show it. Runs with the peers' packages alone."""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classify = pipeline("text-classification", model=os.environ["BENCH_MODEL"], device="cpu")


class Question(BaseModel):
    text: str


@app.post("/predict")
def predict(question: Question) -> dict:
    return classify(question.text, truncation=True)[0]


@app.get("/health")
def health() -> dict:
    return {"status": "ok"}
