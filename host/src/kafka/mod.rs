//! Kafka: the consumer, the emitter of events, dead letters, topics and the development broker.
