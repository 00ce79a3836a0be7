"""Twenty questions whose greedy answers are compared; most are answered at length."""

QUESTIONS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain what a Python list is.",
    "Tell me a story about a fox.",
    "Why is the sky blue?",
    "Describe a winter morning in the mountains.",
    "How does a bicycle stay upright?",
    "Give me a recipe for pancakes.",
    "What is 2 + 2?",
    "Explain how rain forms.",
    "List five cities and say why they matter.",
    "What did the Romans build?",
    "Write a letter to a friend about a holiday.",
    "Explain gravity to a child.",
    "What is the difference between a virus and a bacterium?",
    "Name three fruits.",
    "How do I learn to play the guitar?",
    "Describe the water cycle step by step.",
    "Write a dialogue between a cat and a dog.",
    "What makes a good teacher?",
]
