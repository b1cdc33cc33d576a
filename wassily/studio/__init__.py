"""The studio without its pages: models and images, trainings, who may ask for what."""
