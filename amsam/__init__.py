"""AM-SAM: few-shot segmentation with SAM; prompts come from a detector, masks are calibrated."""
